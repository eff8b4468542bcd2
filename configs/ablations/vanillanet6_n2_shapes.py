# VanillaNet-6 on shapes, ablation:
# series activation with n = 2: 5×5.
_base_ = ["../_base_/shapes_ablation.py"]

model = dict(backbone=dict(act_num=2))
