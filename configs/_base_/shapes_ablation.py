# What the ablations on shapes share: VanillaNet-6, 1/16 as wide, trained for less than a minute on
# two CPU cores.
_base_ = ["../vanillanet_shapes.py"]

model = dict(backbone=dict(arch="6"))

max_epochs = 10
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = [
    dict(
        type="LinearLR",
        start_factor=0.01,
        by_epoch=True,
        begin=0,
        end=1,
        convert_to_iter_based=True,
    ),
    dict(
        type="CosineAnnealingLR",
        eta_min=1e-6,
        by_epoch=True,
        begin=1,
        end=max_epochs,
        convert_to_iter_based=True,
    ),
]
custom_hooks = [
    dict(type="DeepTrainingHook", decay_epochs=max_epochs // 2),
    dict(type="ReseedHook"),
]
default_hooks = dict(checkpoint=dict(interval=max_epochs, max_keep_ckpts=1))
