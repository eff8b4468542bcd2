# VanillaNet-6 on ImageNet-1k, ablation:
# with a shortcut around each block, after the activation; stays when fused.
_base_ = ["../vanillanet6_in1k.py"]

model = dict(backbone=dict(shortcut="after_act"))
