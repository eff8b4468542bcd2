# VanillaNet-12 on ImageNet-1k, for testing the authors' weights (published top-1 81.55 %).
#   mmvanilla test imagenet/vanillanet12_in1k.py vanillanet://12
# Its training recipe is unpublished, so there is none here. To try one, train
# imagenet/vanillanet10_in1k.py with --cfg-options model.backbone.arch=12.
_base_ = ["../_base_/imagenet_testing.py"]

model = dict(backbone=dict(arch="12"))
load_from = "vanillanet://12"
