# UPerNet with a narrow VanillaNet-7, sized for two CPU cores, on the shapes that
# tools/make_shapes.py draws. Trains from scratch in a few minutes.
_base_ = [  # why not `mmseg::`: see upernet_vanillanet.py
    f"{__import__('mmseg').__path__[0]}/.mim/configs/_base_/{name}.py"
    for name in ("models/upernet_convnext", "default_runtime")
]
custom_imports = dict(imports=["mmvanilla"], allow_failed_imports=False)

image_size = (128, 128)
norm_cfg = dict(type="BN", requires_grad=True)
# Nine pixels of ten are background: the shapes count for more.
class_weight = [0.25, 1.0, 1.0, 1.0]
data_preprocessor = dict(size=image_size)
checkpoint_file = None  # the base config's is ConvNeXt's
model = dict(
    data_preprocessor=data_preprocessor,
    backbone=dict(
        _delete_=True, type="VanillaNet", arch="7", width_mult=0.125, out_indices=(0, 1, 2, 3)
    ),
    decode_head=dict(
        in_channels=[64, 128, 256, 512],
        channels=64,
        num_classes=4,
        norm_cfg=norm_cfg,
        loss_decode=dict(class_weight=class_weight),
    ),
    auxiliary_head=dict(
        in_channels=256,
        channels=32,
        num_classes=4,
        norm_cfg=norm_cfg,
        loss_decode=dict(class_weight=class_weight),
    ),
)

metainfo = dict(
    classes=("background", "circle", "square", "triangle"),
    palette=[(128, 128, 128), (220, 20, 60), (0, 114, 189), (60, 179, 75)],
)
data_root = "data/shapes/ade20k/"
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackSegInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="PackSegInputs"),
]
tta_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(
        type="TestTimeAug",
        transforms=[
            [
                dict(type="Resize", scale_factor=ratio, keep_ratio=True)
                for ratio in (0.75, 1.0, 1.25)
            ],
            [dict(type="RandomFlip", prob=float(flip), direction="horizontal") for flip in (0, 1)],
            [dict(type="LoadAnnotations")],
            [dict(type="PackSegInputs")],
        ],
    ),
]
dataset = dict(
    type="BaseSegDataset",
    data_root=data_root,
    metainfo=metainfo,
    img_suffix=".png",
    seg_map_suffix=".png",
    reduce_zero_label=True,
)
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        **dataset,
        data_prefix=dict(img_path="images/training", seg_map_path="annotations/training"),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        **dataset,
        data_prefix=dict(img_path="images/validation", seg_map_path="annotations/validation"),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="IoUMetric", iou_metrics=["mIoU"])
test_evaluator = val_evaluator

max_iters = 600
train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=max_iters)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1.5e-3, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=50, end=max_iters, eta_min=1e-5),
]
default_hooks = dict(
    timer=dict(type="IterTimerHook"),
    logger=dict(type="LoggerHook", interval=20, log_metric_by_epoch=False),
    param_scheduler=dict(type="ParamSchedulerHook"),
    checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=max_iters),
    sampler_seed=dict(type="DistSamplerSeedHook"),
    visualization=dict(type="SegVisualizationHook"),
)
