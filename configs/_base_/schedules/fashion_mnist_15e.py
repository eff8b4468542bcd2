# The schedule for all images of Fashion-MNIST: 15 epochs, about 20 minutes on one CPU core that has
# bfloat16. A learning rate of 0.006 was better than 0.003 on held-out images, see
# docs/fashion_mnist.md.
_base_ = ["small_30e.py"]

max_epochs = 15
optim_wrapper = dict(type="BFloat16OptimWrapper", optimizer=dict(lr=6e-3))
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = [
    dict(_base_.param_scheduler[0], end=1),
    dict(_base_.param_scheduler[1], begin=1, end=max_epochs),
]
custom_hooks = []  # neither network has a λ
default_hooks = dict(logger=dict(interval=117))  # four times an epoch
