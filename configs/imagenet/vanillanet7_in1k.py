# VanillaNet-7 on ImageNet-1k: the authors' recipe (published top-1 77.98 %).
# The recipe is translated; what differs is named in the base config. Testing their weights:
#   mmvanilla test imagenet/vanillanet7_in1k.py vanillanet://7
_base_ = ["../_base_/imagenet_recipe.py"]

model = dict(
    backbone=dict(arch="7"),
    train_cfg=dict(augments=[dict(type="Mixup", alpha=0.4), dict(type="CutMix", alpha=1.0)]),
)
# Layer decay: stem 0, block i is i + 1, the classifier 6.
optim_wrapper = dict(
    optimizer=dict(lr=4.7e-3, weight_decay=0.35),
    constructor="LayerDecayOptimWrapperConstructor",
    paramwise_cfg=dict(_delete_=True, decay_rate=0.8, num_layers=5),
)
