# VanillaNet-9 on ImageNet-1k: the authors' recipe (published top-1 79.87 %).
# The recipe is translated; what differs is named in the base config. Testing their weights:
#   mmvanilla test imagenet/vanillanet9_in1k.py vanillanet://9
_base_ = ["../_base_/imagenet_recipe.py"]

model = dict(
    backbone=dict(arch="9"),
    train_cfg=dict(augments=[dict(type="Mixup", alpha=0.4), dict(type="CutMix", alpha=1.0)]),
)
optim_wrapper = dict(optimizer=dict(lr=3.5e-3, weight_decay=0.3))
