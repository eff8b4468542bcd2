# VanillaNet-6 on ImageNet-1k, ablation:
# the whole VanillaNet: deep training, series activation with n = 3.
_base_ = ["../vanillanet6_in1k.py"]
