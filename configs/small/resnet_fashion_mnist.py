# The network beside vanillanet_fashion_mnist.py: a ResNet-18 for small images, as wide as the same
# number of MACs allows, with the same data and schedule.
_base_ = ["../_base_/datasets/fashion_mnist.py", "../_base_/schedules/fashion_mnist_15e.py"]
custom_imports = dict(imports=["mmvanilla"], allow_failed_imports=False)

model = dict(
    type="ImageClassifier",
    backbone=dict(type="ResNet_CIFAR", depth=18, in_channels=1, stem_channels=10, base_channels=10),
    neck=dict(type="GlobalAveragePooling"),
    head=dict(
        type="LinearClsHead",
        num_classes=10,
        in_channels=80,
        loss=dict(type="LabelSmoothLoss", label_smooth_val=0.1),
    ),
)
