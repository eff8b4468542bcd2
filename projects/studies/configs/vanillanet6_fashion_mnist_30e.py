# Three rows of vanillanet6_fashion_mnist.py with 30 epochs instead of 10, at the learning rate that
# each of the three chose with 10. λ rises in the first half, or in the first fifth and is merged.
_base_ = ["vanillanet6_fashion_mnist.py"]

max_epochs = 30
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = [_base_.param_scheduler[0], dict(_base_.param_scheduler[1], end=max_epochs)]
default_hooks = dict(checkpoint=dict(interval=max_epochs))
optim_wrapper = dict(optimizer=dict(lr=1e-2))
custom_hooks = [dict(type="DeepTrainingHook", decay_epochs=max_epochs // 2)]

ablations = dict(
    _delete_=True,
    full={},
    no_deep_training=_base_.ablations["no_deep_training"],
    merge_early={**_base_.deep_rows["merge_early"], _base_.decay: max_epochs // 5},
)
