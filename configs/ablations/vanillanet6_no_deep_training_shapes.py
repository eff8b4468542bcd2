# VanillaNet-6 on shapes, ablation:
# without deep training: one convolution in each place.
_base_ = ["../_base_/shapes_ablation.py"]

model = dict(backbone=dict(deep_training=False), head=dict(deep_training=False))
# Nothing has a λ: no DeepTrainingHook.
custom_hooks = [dict(type="ReseedHook")]
