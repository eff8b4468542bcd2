# Pure Python, by read_base: a narrow VanillaNet-5 classifier on made-up shapes.
# Images: mmvanilla make_shapes. A config of your own begins the same way, wherever it lies.
from mmengine.config import read_base

with read_base():
    from mmvanilla.configs.shapes_classifier import *

train_cfg.update(max_epochs=10, val_interval=10)
custom_hooks[0].update(decay_epochs=5)
