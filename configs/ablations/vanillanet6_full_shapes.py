# VanillaNet-6 on shapes, ablation:
# the whole VanillaNet: deep training, series activation with n = 3.
_base_ = ["../_base_/shapes_ablation.py"]
