# A narrow ResNet-18 on Fashion-MNIST, whose convolutions are trained as pairs, or as single ones.
_base_ = ["_base_/fashion_mnist_ablations.py"]

model = dict(
    type="ImageClassifier",
    backbone=dict(
        type="ResNet_CIFAR",
        depth=18,
        in_channels=1,
        stem_channels=8,
        base_channels=8,
        strides=(2, 2, 2, 2),
        conv_cfg=dict(type="ConvPair"),
    ),
    neck=dict(type="GlobalAveragePooling"),
    head=dict(
        type="LinearClsHead",
        num_classes=10,
        in_channels=64,
        loss=dict(type="LabelSmoothLoss", label_smooth_val=0.1),
    ),
)
ablations = dict(full={}, no_deep_training={"model.backbone.conv_cfg": None, "custom_hooks": []})
