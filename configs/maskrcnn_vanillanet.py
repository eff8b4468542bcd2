# Mask R-CNN with VanillaNet-13 on COCO, by the authors' recipe for 8 GPUs with 4 images each.
# Published by them: box AP 44.3, mask AP 40.1.
_base_ = [
    "mmdet::_base_/models/mask-rcnn_r50_fpn.py",
    "mmdet::_base_/datasets/coco_instance.py",
    "_base_/coco_recipe.py",
]

model = dict(
    backbone=dict(
        _delete_=True,
        type="VanillaNet",
        arch="13",
        act_num=4,
        out_indices=(0, 1, 2, 3),
        norm_cfg=dict(type="SyncBN", eps=1e-6),
        init_cfg=dict(type="Pretrained", checkpoint="vanillanet://13-act4", prefix="backbone."),
    ),
    neck=dict(in_channels=[512, 1024, 2048, 4096]),
)

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(
        type="RandomChoiceResize",
        scales=[(1333, short_side) for short_side in range(480, 1025, 32)],
        keep_ratio=True,
    ),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs"),
]
train_dataloader = dict(batch_size=4, dataset=dict(pipeline=train_pipeline))

optim_wrapper = dict(optimizer=dict(lr=1.3e-4))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type="MultiStepLR", begin=0, end=12, by_epoch=True, milestones=[10, 12], gamma=0.1),
]
