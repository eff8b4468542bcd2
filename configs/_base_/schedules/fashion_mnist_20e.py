# The schedule for all images of Fashion-MNIST: 20 epochs, half an hour on one CPU core that has
# bfloat16. λ rises in the first half.
_base_ = ["small_30e.py"]

max_epochs = 20
optim_wrapper = dict(type="BFloat16OptimWrapper")
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = [
    dict(_base_.param_scheduler[0], end=1),
    dict(_base_.param_scheduler[1], begin=1, end=max_epochs),
]
custom_hooks = [dict(type="DeepTrainingHook", decay_epochs=max_epochs // 2)]
default_hooks = dict(logger=dict(interval=117))  # four times an epoch
