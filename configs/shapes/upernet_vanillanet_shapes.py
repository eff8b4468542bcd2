# UPerNet with a narrow VanillaNet-7 on made-up shapes: three minutes on two CPU cores.
# Images: mmvanilla make_shapes. It trains from scratch.
_base_ = [
    *(  # why not `mmseg::`: see upernet_vanillanet.py
        f"{__import__('mmseg').__path__[0]}/.mim/configs/_base_/{name}.py"
        for name in ("models/upernet_convnext", "default_runtime")
    ),
    "../_base_/datasets/shapes_ade20k.py",
    "../_base_/schedules/shapes_dense.py",
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

custom_hooks = [dict(type="DeepTrainingHook", decay_iters=200)]
max_iters = 600
train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=max_iters)
param_scheduler = [
    *_base_.param_scheduler,
    dict(type="CosineAnnealingLR", by_epoch=False, begin=50, end=max_iters, eta_min=1e-5),
]
default_hooks = dict(
    timer=dict(type="IterTimerHook"),
    logger=dict(type="LoggerHook", interval=20, log_metric_by_epoch=False),
    param_scheduler=dict(type="ParamSchedulerHook"),
    checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=max_iters),
    sampler_seed=dict(type="DistSamplerSeedHook"),
    visualization=dict(type="SegVisualizationHook"),
    channels_last=dict(type="ChannelsLastHook"),  # faster on CPUs
)
