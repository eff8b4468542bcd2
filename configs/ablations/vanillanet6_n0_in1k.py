# VanillaNet-6 on ImageNet-1k, ablation:
# series activation with n = 0: a 1×1 depthwise convolution behind the ReLU.
_base_ = ["../vanillanet6_in1k.py"]

model = dict(backbone=dict(act_num=0))
