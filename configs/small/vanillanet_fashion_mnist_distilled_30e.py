# The VanillaNet of vanillanet_fashion_mnist.py with a teacher, and with twice as many epochs.
# docs/fashion_mnist.md says what they give.
_base_ = ["vanillanet_fashion_mnist_distilled.py"]

max_epochs = 30
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = [_base_.param_scheduler[0], dict(_base_.param_scheduler[1], end=max_epochs)]
