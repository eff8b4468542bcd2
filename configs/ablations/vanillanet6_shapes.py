# The paper's switches on a VanillaNet-6 of 1/16 width, trained on shapes for less than a minute on
# two CPU cores. Each switch is a line of options, which `tools/run_ablations.py --help` lists:
#   python tools/train.py configs/ablations/vanillanet6_shapes.py \
#     --cfg-options model.backbone.act_num=1
# All of them, with three seeds each, and a table:
#   python tools/run_ablations.py configs/ablations/vanillanet6_shapes.py
_base_ = ["../shapes/vanillanet_shapes.py"]

model = dict(backbone=dict(arch="6"))

max_epochs = 10
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = [
    dict(_base_.param_scheduler[0], end=1),
    dict(_base_.param_scheduler[1], begin=1, end=max_epochs),
]
# Alone in its list, so that `custom_hooks=[]` switches nothing off but it.
custom_hooks = [dict(type="DeepTrainingHook", decay_epochs=max_epochs // 2)]
default_hooks = dict(
    reseed=dict(type="ReseedHook"), checkpoint=dict(interval=max_epochs, max_keep_ckpts=1)
)
