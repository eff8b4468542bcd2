# VanillaNet-11 on ImageNet-1k, for testing the authors' weights (published top-1 81.08 %).
#   mmvanilla test imagenet/vanillanet11_in1k.py vanillanet://11
# Its training recipe is unpublished, so there is none here. To try one, train
# imagenet/vanillanet10_in1k.py with --cfg-options model.backbone.arch=11.
_base_ = ["../_base_/imagenet_testing.py"]

model = dict(backbone=dict(arch="11"))
load_from = "vanillanet://11"
