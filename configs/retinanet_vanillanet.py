# RetinaNet with VanillaNet-13 on COCO: the authors' recipe (published AP: box 43.0).
# It is for 8 GPUs with 4 images each. The FPN begins at the 1/8 level.
_base_ = [
    "mmdet::_base_/models/retinanet_r50_fpn.py",
    "mmdet::_base_/datasets/coco_detection.py",
    "_base_/coco_recipe.py",
]

model = dict(
    backbone=_base_.pop("backbone"),
    neck=dict(in_channels=[512, 1024, 2048, 4096]),
)

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    _base_.pop("multi_scale_resize"),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs"),
]
train_dataloader = dict(batch_size=4, dataset=dict(pipeline=train_pipeline))
# `test --tta`: three sizes, each also flipped.
tta_model = dict(
    type="DetTTAModel", tta_cfg=dict(nms=dict(type="nms", iou_threshold=0.5), max_per_img=100)
)
tta_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(
        type="TestTimeAug",
        transforms=[
            [dict(type="Resize", scale=(1333, side), keep_ratio=True) for side in (800, 640, 960)],
            [dict(type="RandomFlip", prob=prob) for prob in (0.0, 1.0)],
            [dict(type="LoadAnnotations", with_bbox=True)],
            [
                dict(
                    type="PackDetInputs",
                    meta_keys=(
                        *("img_id", "img_path", "ori_shape", "img_shape"),
                        *("scale_factor", "flip", "flip_direction"),
                    ),
                )
            ],
        ],
    ),
]

optim_wrapper = dict(optimizer=dict(lr=8e-5))
param_scheduler = [_base_.param_scheduler[0], dict(_base_.param_scheduler[1], milestones=[10, 11])]
