# VanillaNet-13-1.5x-ada on ImageNet-1k, for testing the authors' weights (published top-1 83.11 %).
#   mmvanilla test imagenet/vanillanet13x1.5_ada_in1k.py vanillanet://13-1.5x-ada
# Its training recipe is unpublished, so there is none here. To try one, train
# imagenet/vanillanet10_in1k.py with
#   --cfg-options model.backbone.arch=13-1.5x-ada model.head.in_channels=6144
_base_ = ["../_base_/imagenet_testing.py"]

model = dict(backbone=dict(arch="13-1.5x-ada"), head=dict(in_channels=6144))
load_from = "vanillanet://13-1.5x-ada"
