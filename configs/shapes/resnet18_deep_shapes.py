# Deep training for another network, on made-up shapes: a narrow ResNet-18 trained as pairs.
# Images: mmvanilla make_shapes. The one line that matters is conv_cfg; the pairs fuse to plain
# convolutions.
_base_ = [
    "../_base_/datasets/shapes_imagenet.py",
    "../_base_/schedules/small_30e.py",
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
