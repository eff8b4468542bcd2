# VanillaNet-12 for testing the published ImageNet-1k weights (top-1 81.55 %):
#   python tools/test.py configs/imagenet/vanillanet12_in1k.py vanillanet://12
# Its training recipe is unpublished, so there is none here. To try one, train
# configs/imagenet/vanillanet10_in1k.py with --cfg-options model.backbone.arch=12.
_base_ = ["../_base_/imagenet_testing.py"]

model = dict(backbone=dict(arch="12"))
load_from = "vanillanet://12"
