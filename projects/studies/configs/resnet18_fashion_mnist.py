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
single = {"model.backbone.conv_cfg": None, "custom_hooks": []}
early, wider = _base_.deep_rows["merge_early"], "model.backbone.conv_cfg.mid_ratio"
ablations = dict(
    full={},
    no_deep_training=single,
    no_deep_training_lamb={**single, **_base_.lamb},
    merge_early_2_wide={**early, wider: 2},
    merge_early_4_wide={**early, wider: 4},
    **_base_.deep_rows,
)
