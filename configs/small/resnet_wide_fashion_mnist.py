# A teacher: the ResNet of resnet_fashion_mnist.py, three times as wide.
# Its student is vanillanet_fashion_mnist_distilled.py; data and schedule are the same. Its labels
# are not smoothed, since smoothing takes away what a student learns from the wrong classes (Müller
# et al., 2019).
_base_ = ["resnet_fashion_mnist.py"]

model = dict(
    backbone=dict(stem_channels=32, base_channels=32),
    head=dict(in_channels=256, loss=dict(_delete_=True, type="CrossEntropyLoss")),
)
