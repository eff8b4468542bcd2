# VanillaNet-5 on ImageNet-1k: the authors' recipe (published top-1 72.49 %).
# The recipe is translated; what differs is named in the base config. Testing their weights:
#   mmvanilla test imagenet/vanillanet5_in1k.py vanillanet://5
_base_ = ["../_base_/imagenet_recipe.py"]

model = dict(
    backbone=dict(arch="5"),
    train_cfg=dict(augments=[dict(type="Mixup", alpha=0.1), dict(type="CutMix", alpha=1.0)]),
)
optim_wrapper = dict(optimizer=dict(lr=3.5e-3, weight_decay=0.35))
