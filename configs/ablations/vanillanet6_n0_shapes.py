# VanillaNet-6 on shapes, ablation:
# series activation with n = 0: a 1×1 depthwise convolution behind the ReLU.
_base_ = ["../_base_/shapes_ablation.py"]

model = dict(backbone=dict(act_num=0))
