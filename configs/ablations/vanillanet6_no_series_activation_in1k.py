# VanillaNet-6 on ImageNet-1k, ablation:
# without series activation: plain ReLU.
_base_ = ["../vanillanet6_in1k.py"]

model = dict(backbone=dict(series_activation=False))
