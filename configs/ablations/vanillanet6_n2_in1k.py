# VanillaNet-6 on ImageNet-1k, ablation:
# series activation with n = 2: 5×5.
_base_ = ["../vanillanet6_in1k.py"]

model = dict(backbone=dict(act_num=2))
