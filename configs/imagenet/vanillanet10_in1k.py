# VanillaNet-10 on ImageNet-1k: the authors' recipe (published top-1 80.57 %).
# The recipe is translated; what differs is named in the base config. Testing their weights:
#   mmvanilla test imagenet/vanillanet10_in1k.py vanillanet://10
_base_ = ["../_base_/imagenet_recipe.py"]

model = dict(
    backbone=dict(arch="10"),
    train_cfg=dict(augments=[dict(type="Mixup", alpha=0.4), dict(type="CutMix", alpha=1.0)]),
)
optim_wrapper = dict(optimizer=dict(lr=3.5e-3, weight_decay=0.25))
