# VanillaNet-6 on shapes, ablation:
# series activation with n = 1: 3×3.
_base_ = ["../_base_/shapes_ablation.py"]

model = dict(backbone=dict(act_num=1))
