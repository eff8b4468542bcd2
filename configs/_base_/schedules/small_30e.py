# A small classifier from scratch on two CPU cores: 30 epochs of AdamW, λ from 0 to 1 in the first
# half. Batches are loaded in the main process, where ReseedHook reaches the augmentations' random
# numbers.
_base_ = ["mmpretrain::_base_/default_runtime.py", "warmup_cosine.py"]

max_epochs = 30
train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=10)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=3e-3, weight_decay=0.05),
    paramwise_cfg=dict(flat_decay_mult=0.0),
)
param_scheduler = [
    dict(_base_.param_scheduler[0], start_factor=0.01, end=3),
    dict(_base_.param_scheduler[1], begin=3, end=max_epochs),
]
# Alone in its list: networks without pairs of convolutions set `custom_hooks = []`.
custom_hooks = [dict(type="DeepTrainingHook", decay_epochs=max_epochs // 2)]
default_hooks = dict(
    logger=dict(interval=19),
    checkpoint=dict(interval=5, max_keep_ckpts=2),
    reseed=dict(type="ReseedHook"),
    channels_last=dict(type="ChannelsLastHook"),  # faster on CPUs
)
randomness = dict(seed=0)
