# A ResNet-18 for small images, with as many MACs as the VanillaNet of vanillanet_fashion_mnist.py.
# Data and schedule are the same.
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
