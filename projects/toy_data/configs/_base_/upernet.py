# An UPerNet with narrow heads, trained from scratch on garments: all but the backbone and the
# in_channels of the heads. `python -m projects.toy_data.make_garments` makes the images.
_base_ = [
    *(  # why not `mmseg::`: see configs/upernet_vanillanet.py
        f"{__import__('mmseg').__path__[0]}/.mim/configs/_base_/{name}.py"
        for name in ("models/upernet_convnext", "default_runtime")
    ),
    "ade20k.py",
    "schedule.py",
]
custom_imports = dict(imports=["mmvanilla"], allow_failed_imports=False)

norm_cfg = dict(type="BN", requires_grad=True)
checkpoint_file = None  # the base config's is ConvNeXt's
data_preprocessor = dict(size=(96, 96))
# Three pixels of four are background: garments count for more.
heads = dict(
    num_classes=11,
    norm_cfg=norm_cfg,
    loss_decode=dict(class_weight=[0.3, *[1.0 for _ in range(10)]]),
)
model = dict(
    data_preprocessor=data_preprocessor,
    decode_head=dict(channels=48, **heads),
    auxiliary_head=dict(channels=32, **heads),
)

train_dataloader = dict(batch_size=4)
val_dataloader = dict(batch_size=8)
test_dataloader = val_dataloader
max_epochs = 8
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = [_base_.pop("warm_up"), dict(_base_.pop("cosine"), begin=0, end=max_epochs)]
default_hooks = dict(
    timer=dict(type="IterTimerHook"),
    logger=dict(type="LoggerHook", interval=50),
    param_scheduler=dict(type="ParamSchedulerHook"),
    checkpoint=dict(type="CheckpointHook", interval=1, max_keep_ckpts=1),
    sampler_seed=dict(type="DistSamplerSeedHook"),
    visualization=dict(type="SegVisualizationHook"),
    channels_last=dict(type="ChannelsLastHook"),  # faster on CPUs
)
log_processor = dict(by_epoch=True)
