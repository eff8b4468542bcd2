# Pure Python, by read_base: Mask R-CNN with a narrow VanillaNet-7 on made-up shapes.
# Images: mmvanilla make_shapes. A config of your own begins the same way, wherever it lies.
from mmengine.config import read_base

with read_base():
    from mmvanilla.configs.shapes_detector import *
