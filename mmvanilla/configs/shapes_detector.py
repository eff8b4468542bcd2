"""Pure Python: Mask R-CNN with a narrow VanillaNet-7 for MMDetection on made-up shapes."""

from mmcv.transforms import LoadImageFromFile
from mmdet.datasets import CocoDataset
from mmdet.datasets.transforms import LoadAnnotations, PackDetInputs, RandomFlip, Resize
from mmdet.engine.hooks import DetVisualizationHook
from mmdet.evaluation import CocoMetric
from mmdet.models import (
    FPN,
    ConvFCBBoxHead,
    CrossEntropyLoss,
    DetDataPreprocessor,
    FCNMaskHead,
    L1Loss,
    MaskRCNN,
    RPNHead,
    SingleRoIExtractor,
    StandardRoIHead,
)
from mmdet.models.task_modules import (
    AnchorGenerator,
    DeltaXYWHBBoxCoder,
    MaxIoUAssigner,
    RandomSampler,
)
from mmengine.config import read_base
from mmengine.optim import CosineAnnealingLR

from mmvanilla.engine.channels_last import ChannelsLastHook
from mmvanilla.engine.deep_training_hook import DeepTrainingHook
from mmvanilla.engine.enlarging_visualizer import EnlargingVisualizer
from mmvanilla.models.vanillanet import VanillaNet

with read_base():
    from mmvanilla.configs.shapes_runtime import *

default_scope = "mmdet"

num_classes = 3
norm_cfg = dict(type="BN")
coder = dict(type=DeltaXYWHBBoxCoder, target_means=[0.0] * 4)
# RoIAlign and nms stand by name: MMDetection does not find them by the full names of a dump.
channels = 48
extractor = dict(type=SingleRoIExtractor, out_channels=channels, featmap_strides=[4, 8, 16, 32])
assigner = dict(type=MaxIoUAssigner, ignore_iof_thr=-1)
sampler = dict(type=RandomSampler, neg_pos_ub=-1)
proposals = dict(
    nms_pre=100, max_per_img=50, nms=dict(type="nms", iou_threshold=0.7), min_bbox_size=0
)
model = dict(
    type=MaskRCNN,
    data_preprocessor=dict(
        type=DetDataPreprocessor,
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_mask=True,
        pad_size_divisor=32,
    ),
    backbone=dict(type=VanillaNet, arch="7", width_mult=0.125, out_indices=(0, 1, 2, 3), act_num=1),
    neck=dict(
        type=FPN,
        in_channels=[64, 128, 256, 512],
        out_channels=channels,
        num_outs=4,
        norm_cfg=norm_cfg,
    ),
    rpn_head=dict(
        type=RPNHead,
        in_channels=channels,
        feat_channels=channels,
        anchor_generator=dict(
            type=AnchorGenerator, scales=[3.5, 5], ratios=[1.0], strides=[4, 8, 16, 32]
        ),
        bbox_coder=dict(coder, target_stds=[1.0] * 4),
        loss_cls=dict(type=CrossEntropyLoss, use_sigmoid=True, loss_weight=1.0),
        loss_bbox=dict(type=L1Loss, loss_weight=1.0),
    ),
    roi_head=dict(
        type=StandardRoIHead,
        bbox_roi_extractor=dict(
            extractor, roi_layer=dict(type="RoIAlign", output_size=7, sampling_ratio=1)
        ),
        bbox_head=dict(
            type=ConvFCBBoxHead,
            num_shared_convs=2,
            num_shared_fcs=1,
            in_channels=channels,
            conv_out_channels=channels,
            fc_out_channels=256,
            roi_feat_size=7,
            num_classes=num_classes,
            norm_cfg=norm_cfg,
            bbox_coder=dict(coder, target_stds=[0.1, 0.1, 0.2, 0.2]),
            reg_class_agnostic=True,
            loss_cls=dict(type=CrossEntropyLoss, use_sigmoid=False, loss_weight=1.0),
            loss_bbox=dict(type=L1Loss, loss_weight=1.0),
        ),
        mask_roi_extractor=dict(
            extractor, roi_layer=dict(type="RoIAlign", output_size=14, sampling_ratio=1)
        ),
        mask_head=dict(
            type=FCNMaskHead,
            num_convs=2,
            in_channels=channels,
            conv_out_channels=channels,
            num_classes=num_classes,
            norm_cfg=norm_cfg,
            loss_mask=dict(type=CrossEntropyLoss, use_mask=True, loss_weight=1.0),
        ),
    ),
    train_cfg=dict(
        rpn=dict(
            assigner=dict(
                assigner,
                pos_iou_thr=0.7,
                neg_iou_thr=0.3,
                min_pos_iou=0.3,
                match_low_quality=True,
            ),
            sampler=dict(sampler, num=64, pos_fraction=0.5, add_gt_as_proposals=False),
            allowed_border=-1,
            pos_weight=-1,
            debug=False,
        ),
        rpn_proposal=proposals,
        rcnn=dict(
            assigner=dict(
                assigner,
                pos_iou_thr=0.5,
                neg_iou_thr=0.5,
                min_pos_iou=0.5,
                match_low_quality=True,
            ),
            sampler=dict(sampler, num=16, pos_fraction=0.375, add_gt_as_proposals=True),
            mask_size=28,
            pos_weight=-1,
            debug=False,
        ),
    ),
    test_cfg=dict(
        rpn=proposals,
        rcnn=dict(
            score_thr=0.05,
            nms=dict(type="nms", iou_threshold=0.5),
            max_per_img=100,
            mask_thr_binary=0.5,
        ),
    ),
)

data_root = "data/shapes/coco/"
dataset = dict(
    type=CocoDataset,
    data_root=data_root,
    metainfo=dict(
        classes=("circle", "square", "triangle"),
        palette=[(220, 20, 60), (0, 110, 220), (250, 170, 30)],
    ),
)
load_annotations = dict(type=LoadAnnotations, with_bbox=True, with_mask=True)
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    persistent_workers=False,
    sampler=train_sampler,
    dataset=dict(
        dataset,
        ann_file="annotations/instances_train.json",
        data_prefix=dict(img="train/"),
        pipeline=[
            dict(type=LoadImageFromFile),
            load_annotations,
            dict(type=RandomFlip, prob=0.5),
            dict(type=PackDetInputs),
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
        ann_file="annotations/instances_val.json",
        data_prefix=dict(img="val/"),
        test_mode=True,
        pipeline=[
            dict(type=LoadImageFromFile),
            dict(type=Resize, scale=(128, 128), keep_ratio=True),
            load_annotations,
            dict(
                type=PackDetInputs,
                meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor"),
            ),
        ],
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(
    type=CocoMetric,
    ann_file=f"{data_root}annotations/instances_val.json",
    metric=["bbox", "segm"],
    format_only=False,
)
test_evaluator = val_evaluator
visualizer = dict(
    type=EnlargingVisualizer,
    vis_backends=vis_backends,
    name="visualizer",
    min_side=256,
    line_width=2,
)
max_epochs = 8
train_cfg.update(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler.append(
    dict(
        type=CosineAnnealingLR,
        by_epoch=True,
        convert_to_iter_based=True,
        begin=0,
        end=max_epochs,
        eta_min=1e-5,
    )
)
default_hooks.update(
    channels_last=dict(type=ChannelsLastHook),
    visualization=dict(type=DetVisualizationHook, score_thr=0.7),
)
custom_hooks = [dict(type=DeepTrainingHook, decay_epochs=1, by_epoch=False)]
