# Pure Python, by read_base: UPerNet with a narrow VanillaNet-7 on made-up shapes.
# Images: mmvanilla make_shapes. A config of your own begins the same way, wherever it lies.
from mmengine.config import read_base

with read_base():
    from mmvanilla.configs.shapes_segmenter import *

train_cfg.update(max_epochs=3, val_interval=3)
