# VanillaNet-6 on shapes, ablation:
# with a shortcut around each block, after the activation; stays when fused.
_base_ = ["../_base_/shapes_ablation.py"]

model = dict(backbone=dict(shortcut="after_act"))
