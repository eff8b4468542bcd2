# A classifier of Fashion-MNIST from scratch on two CPU cores: AdamW, one epoch of warm-up, then a
# cosine to the end. A config with pairs of convolutions adds the DeepTrainingHook.
_base_ = ["mmpretrain::_base_/default_runtime.py", "warmup_cosine.py"]

max_epochs = 30
train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=max_epochs)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=3e-3, weight_decay=0.05),
    paramwise_cfg=dict(flat_decay_mult=0.0),
)
param_scheduler = [
    dict(_base_.param_scheduler[0], start_factor=0.01, end=1),
    dict(_base_.param_scheduler[1], begin=1, end=max_epochs),
]
default_hooks = dict(
    logger=dict(interval=117),
    checkpoint=dict(interval=5, max_keep_ckpts=1),
    reseed=dict(type="ReseedHook"),
    channels_last=dict(type="ChannelsLastHook"),  # faster on CPUs
)
randomness = dict(seed=0)
