# VanillaNet-6 on ImageNet-1k, ablation:
# without both: one convolution and ReLU in each place.
_base_ = ["../vanillanet6_in1k.py"]

model = dict(
    backbone=dict(deep_training=False, series_activation=False),
    head=dict(deep_training=False),
)
# Nothing has a λ: no DeepTrainingHook.
custom_hooks = [dict(type="EMAHook", momentum=4e-5, update_buffers=True)]
