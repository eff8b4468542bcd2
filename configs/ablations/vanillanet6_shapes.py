# The paper's ablations on a narrow VanillaNet-6 and made-up shapes: a minute each, two CPU cores.
# Images: mmvanilla make_shapes. Each switch is a line of options, which
# `mmvanilla run_ablations --help` lists:
#   mmvanilla train ablations/vanillanet6_shapes.py --cfg-options model.backbone.act_num=1
# All of them, with three seeds each, and a table:
#   mmvanilla run_ablations ablations/vanillanet6_shapes.py
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
