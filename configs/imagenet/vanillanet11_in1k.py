# VanillaNet-11 for testing the published ImageNet-1k weights (top-1 81.08 %):
#   python tools/test.py configs/imagenet/vanillanet11_in1k.py vanillanet://11
# Its training recipe is unpublished, so there is none here. To try one, train
# configs/imagenet/vanillanet10_in1k.py with --cfg-options model.backbone.arch=11.
_base_ = ["../_base_/imagenet_testing.py"]

model = dict(backbone=dict(arch="11"))
load_from = "vanillanet://11"
