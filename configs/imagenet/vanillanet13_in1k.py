# VanillaNet-13 on ImageNet-1k, for testing the authors' weights (published top-1 82.05 %).
#   mmvanilla test imagenet/vanillanet13_in1k.py vanillanet://13
# Its training recipe is unpublished, so there is none here. To try one, train
# imagenet/vanillanet10_in1k.py with --cfg-options model.backbone.arch=13.
_base_ = ["../_base_/imagenet_testing.py"]

model = dict(backbone=dict(arch="13"))
load_from = "vanillanet://13"
