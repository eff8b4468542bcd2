# Mask R-CNN with VanillaNet-13 on COCO: the authors' recipe (published AP: box 44.3, mask 40.1).
# It is for 8 GPUs with 4 images each.
_base_ = [
    "mmdet::_base_/models/mask-rcnn_r50_fpn.py",
    "mmdet::_base_/datasets/coco_instance.py",
    "_base_/coco_recipe.py",
]

model = dict(
    backbone=_base_.pop("backbone"),
    neck=dict(in_channels=[512, 1024, 2048, 4096]),
)

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    _base_.pop("multi_scale_resize"),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs"),
]
train_dataloader = dict(batch_size=4, dataset=dict(pipeline=train_pipeline))

optim_wrapper = dict(optimizer=dict(lr=1.3e-4))
