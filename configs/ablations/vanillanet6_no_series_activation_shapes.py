# VanillaNet-6 on shapes, ablation:
# without series activation: plain ReLU.
_base_ = ["../_base_/shapes_ablation.py"]

model = dict(backbone=dict(series_activation=False))
