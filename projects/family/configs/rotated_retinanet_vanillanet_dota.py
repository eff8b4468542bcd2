# Rotated RetinaNet of MMRotate with VanillaNet-13 on DOTA; not run in full
# MMRotate's last releases come without their configs, so this one inherits MMDetection's RetinaNet
# and changes what a rotated box needs. The schedule is that of the VanillaNet authors' RetinaNet.
_base_ = ["mmdet::_base_/models/retinanet_r50_fpn.py", "../../../configs/_base_/coco_recipe.py"]
default_scope = "mmrotate"  # what is inherited by `mmdet::` keeps its own

_base_.pop("multi_scale_resize")  # DOTA is cut into tiles of one size
angle_version = "le90"
model = dict(
    data_preprocessor=dict(boxtype2tensor=False),
    backbone=_base_.pop("backbone"),
    neck=dict(in_channels=[512, 1024, 2048, 4096]),
    bbox_head=dict(
        num_classes=15,
        anchor_generator=dict(
            type="mmrotate.FakeRotatedAnchorGenerator", angle_version=angle_version
        ),
        bbox_coder=dict(
            _delete_=True,
            type="mmrotate.DeltaXYWHTRBBoxCoder",
            angle_version=angle_version,
            edge_swap=True,
            proj_xy=True,
            target_means=[0.0] * 5,
            target_stds=[1.0] * 5,
        ),
    ),
    train_cfg=dict(
        assigner=dict(iou_calculator=dict(type="mmrotate.RBboxOverlaps2D")),
    ),
    # A tile may hold hundreds of vehicles, which lie close together without overlapping.
    test_cfg=dict(
        nms_pre=2000,
        max_per_img=2000,
        nms=dict(_delete_=True, type="nms_rotated", iou_threshold=0.1),
    ),
)

load_boxes = [
    dict(type="mmdet.LoadAnnotations", with_bbox=True, box_type="qbox"),
    dict(type="mmrotate.ConvertBoxType", box_type_mapping=dict(gt_bboxes="rbox")),
]
resize = dict(type="mmdet.Resize", scale=(1024, 1024), keep_ratio=True)
train_pipeline = [
    dict(type="mmdet.LoadImageFromFile"),
    *load_boxes,
    resize,
    dict(type="mmdet.RandomFlip", prob=0.75, direction=["horizontal", "vertical", "diagonal"]),
    dict(type="mmdet.PackDetInputs"),
]
test_pipeline = [
    dict(type="mmdet.LoadImageFromFile"),
    resize,
    *load_boxes,  # after the resize, since results are compared at the size of the file
    dict(
        type="mmdet.PackDetInputs",
        meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor"),
    ),
]
dataset = dict(
    type="mmrotate.DOTADataset",
    data_root="data/split_ss_dota/",
    ann_file="trainval/annfiles/",
    data_prefix=dict(img_path="trainval/images/"),
)
train_dataloader = dict(
    batch_size=4,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(dataset, filter_cfg=dict(filter_empty_gt=True), pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(dataset, test_mode=True, pipeline=test_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="mmrotate.DOTAMetric", metric="mAP")
test_evaluator = val_evaluator

# In the loops as MMDetection has them, types would be looked up in its own scope.
train_cfg = dict(_delete_=True, type="EpochBasedTrainLoop", max_epochs=12, val_interval=1)
val_cfg = dict(_delete_=True, type="ValLoop")
test_cfg = dict(_delete_=True, type="TestLoop")
default_hooks = dict(visualization=dict(type="mmdet.DetVisualizationHook"))
visualizer = dict(type="mmrotate.RotLocalVisualizer")
optim_wrapper = dict(
    optimizer=dict(lr=8e-5),
    clip_grad=dict(max_norm=35),
    constructor="mmvanilla.LayerDecayOptimWrapperConstructor",
)
