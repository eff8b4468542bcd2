# VanillaNet-6 on ImageNet-1k, ablation:
# with a shortcut around each convolution, before the activation; fuses away.
_base_ = ["../vanillanet6_in1k.py"]

model = dict(backbone=dict(shortcut="before_act"))
