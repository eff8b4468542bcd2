"""Pure Python: a narrow VanillaNet-5 classifier for MMPretrain on made-up shapes."""

from mmengine.config import read_base
from mmengine.dataset import default_collate
from mmpretrain.datasets import CustomDataset, LoadImageFromFile, PackInputs, RandomFlip, Resize
from mmpretrain.evaluation import Accuracy
from mmpretrain.models import ClsDataPreprocessor, ImageClassifier, LabelSmoothLoss
from mmpretrain.visualization import UniversalVisualizer

from mmvanilla.models.cls_head import VanillaNetClsHead
from mmvanilla.models.vanillanet import VanillaNet

with read_base():
    from mmvanilla.configs.shapes_runtime import *

default_scope = "mmpretrain"

model = dict(
    type=ImageClassifier,
    data_preprocessor=dict(
        type=ClsDataPreprocessor,
        num_classes=6,
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=True,
    ),
    backbone=dict(type=VanillaNet, arch="5", width_mult=1 / 16, out_indices=(-1,)),
    head=dict(
        type=VanillaNetClsHead,
        num_classes=6,
        in_channels=256,
        loss=dict(type=LabelSmoothLoss, label_smooth_val=0.1),
    ),
)

test_pipeline = [
    dict(type=LoadImageFromFile),
    dict(type=Resize, scale=64, interpolation="area"),
    dict(type=PackInputs),
]
train_pipeline = [
    *test_pipeline[:2],
    dict(type=RandomFlip, prob=0.5, direction="horizontal"),
    dict(type=PackInputs),
]
data_root = "data/shapes/imagenet"
train_dataloader = dict(
    batch_size=32,
    num_workers=0,
    persistent_workers=False,
    sampler=train_sampler,
    collate_fn=dict(type=default_collate),
    dataset=dict(type=CustomDataset, data_root=f"{data_root}/train", pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=50,
    num_workers=0,
    persistent_workers=False,
    sampler=test_sampler,
    collate_fn=dict(type=default_collate),
    dataset=dict(type=CustomDataset, data_root=f"{data_root}/val", pipeline=test_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = dict(type=Accuracy, topk=(1,))
test_evaluator = val_evaluator
visualizer = dict(type=UniversalVisualizer, vis_backends=vis_backends)

max_epochs = 30
train_cfg.update(max_epochs=max_epochs, val_interval=10)
optim_wrapper["optimizer"].update(lr=3e-3)
custom_hooks[0].update(decay_epochs=max_epochs // 2)
