# The schedule for all images of Fashion-MNIST: 15 epochs, about 20 minutes on one CPU core that has
# bfloat16. The learning rate is the best of 0.003 and 0.006, for both networks that use it, on 10,000
# held-out training images after 8 epochs of 20,000 images.
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
