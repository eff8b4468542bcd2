# Deep training for another network: a narrow ResNet-18 whose convolutions train as pairs and fuse
# to plain ones. The one line that matters is conv_cfg.
_base_ = [
    "../_base_/datasets/shapes_imagenet.py",
    "../_base_/schedules/shapes_classification.py",
]
custom_imports = dict(imports=["mmvanilla"], allow_failed_imports=False)

model = dict(
    type="ImageClassifier",
    backbone=dict(
        type="ResNet",
        depth=18,
        stem_channels=16,
        base_channels=16,
        conv_cfg=dict(type="ConvPair"),
    ),
    neck=dict(type="GlobalAveragePooling"),
    head=dict(
        type="LinearClsHead",
        num_classes=6,
        in_channels=128,
        loss=dict(type="LabelSmoothLoss", label_smooth_val=0.1),
    ),
)
