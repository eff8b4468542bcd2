# VanillaNet-6 on shapes, ablation:
# with a shortcut around each convolution, before the activation; fuses away.
_base_ = ["../_base_/shapes_ablation.py"]

model = dict(backbone=dict(shortcut="before_act"))
