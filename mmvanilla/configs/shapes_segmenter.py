"""Pure Python: UPerNet with a narrow VanillaNet-7 for MMSegmentation on made-up shapes."""

from mmcv.transforms import LoadImageFromFile, RandomFlip
from mmengine.config import read_base
from mmseg.datasets import BaseSegDataset, LoadAnnotations, PackSegInputs
from mmseg.engine import SegVisualizationHook
from mmseg.evaluation import IoUMetric
from mmseg.models import CrossEntropyLoss, EncoderDecoder, FCNHead, SegDataPreProcessor, UPerHead
from mmseg.visualization import SegLocalVisualizer

from mmvanilla.models.vanillanet import VanillaNet

with read_base():
    from mmvanilla.configs.shapes_runtime import *

default_scope = "mmseg"

num_classes = 4
norm_cfg = dict(type="BN", requires_grad=True)
# Nine pixels of ten are background: the shapes count for more.
loss_decode = dict(type=CrossEntropyLoss, class_weight=[0.25, 1.0, 1.0, 1.0])
model = dict(
    type=EncoderDecoder,
    data_preprocessor=dict(
        type=SegDataPreProcessor,
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size=(128, 128),
    ),
    backbone=dict(type=VanillaNet, arch="7", width_mult=0.125, out_indices=(0, 1, 2, 3)),
    decode_head=dict(
        type=UPerHead,
        in_channels=[64, 128, 256, 512],
        in_index=[0, 1, 2, 3],
        pool_scales=(1, 2, 3, 6),
        channels=64,
        num_classes=num_classes,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=loss_decode,
    ),
    auxiliary_head=dict(
        type=FCNHead,
        in_channels=256,
        in_index=2,
        channels=32,
        num_convs=1,
        concat_input=False,
        num_classes=num_classes,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(loss_decode, loss_weight=0.4),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode="whole"),
)

dataset = dict(
    type=BaseSegDataset,
    data_root="data/shapes/ade20k/",
    metainfo=dict(
        classes=("background", "circle", "square", "triangle"),
        palette=[(128, 128, 128), (220, 20, 60), (0, 114, 189), (60, 179, 75)],
    ),
    img_suffix=".png",
    seg_map_suffix=".png",
    reduce_zero_label=True,
)
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    persistent_workers=False,
    sampler=train_sampler,
    dataset=dict(
        dataset,
        data_prefix=dict(img_path="images/training", seg_map_path="annotations/training"),
        pipeline=[
            dict(type=LoadImageFromFile),
            dict(type=LoadAnnotations),
            dict(type=RandomFlip, prob=0.5),
            dict(type=PackSegInputs),
        ],
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    persistent_workers=False,
    sampler=test_sampler,
    dataset=dict(
        dataset,
        data_prefix=dict(img_path="images/validation", seg_map_path="annotations/validation"),
        pipeline=[
            dict(type=LoadImageFromFile),
            dict(type=LoadAnnotations),
            dict(type=PackSegInputs),
        ],
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type=IoUMetric, iou_metrics=["mIoU"])
test_evaluator = val_evaluator
visualizer = dict(type=SegLocalVisualizer, vis_backends=vis_backends, name="visualizer")
default_hooks.update(visualization=dict(type=SegVisualizationHook))
