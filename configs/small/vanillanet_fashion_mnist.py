# A narrow VanillaNet-6 on Fashion-MNIST, trained on two CPU cores.
_base_ = ["../_base_/datasets/fashion_mnist.py", "../_base_/schedules/small_30e.py"]
custom_imports = dict(imports=["mmvanilla", "mmvanilla.cls_head"], allow_failed_imports=False)

model = dict(
    type="ImageClassifier",
    backbone=dict(
        type="VanillaNet",
        in_channels=1,
        # The published stem would leave less than one pixel of 28×28, so this one strides by 2:
        # 28×28 → stem 14×14 → 14×14 → 7×7 → 3×3 → 3×3.
        arch=dict(
            dims=(48, 96, 192, 384, 384), strides=(1, 2, 2, 1), stem_stride=2, stem_padding=1
        ),
        out_indices=(-1,),
    ),
    head=dict(
        type="VanillaNetClsHead",
        num_classes=10,
        in_channels=384,
        dropout=0.1,
        loss=dict(type="LabelSmoothLoss", label_smooth_val=0.1),
    ),
)
default_hooks = dict(logger=dict(interval=117))  # four times an epoch
