# A narrow VanillaNet-5 classifier on made-up shapes: deep training in two minutes on two CPU cores.
# Images: mmvanilla make_shapes. λ goes from 0 to 1 in the first half of the training.
_base_ = [
    "../_base_/datasets/shapes_imagenet.py",
    "../_base_/schedules/small_30e.py",
]
custom_imports = dict(imports=["mmvanilla", "mmvanilla.cls_head"], allow_failed_imports=False)

model = dict(
    type="ImageClassifier",
    backbone=dict(type="VanillaNet", arch="5", width_mult=1 / 16, out_indices=(-1,)),
    head=dict(
        type="VanillaNetClsHead",
        num_classes=6,
        in_channels=256,
        loss=dict(type="LabelSmoothLoss", label_smooth_val=0.1),
    ),
)
