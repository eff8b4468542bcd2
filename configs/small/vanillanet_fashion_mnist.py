# A narrow VanillaNet-6 on Fashion-MNIST, trained on two CPU cores.
_base_ = ["../_base_/datasets/fashion_mnist.py", "../_base_/schedules/fashion_mnist_20e.py"]
custom_imports = dict(imports=["mmvanilla", "mmvanilla.cls_head"], allow_failed_imports=False)

model = dict(
    type="ImageClassifier",
    backbone=dict(
        type="VanillaNet",
        in_channels=1,
        # The published stem would leave less than one pixel of 28×28, so this one strides by 2:
        # 28×28 → stem 14×14 → 14×14 → 7×7 → 3×3 → 3×3.
        arch=dict(
            dims=(48, 96, 208, 400, 400), strides=(1, 2, 2, 1), stem_stride=2, stem_padding=1
        ),
        act_num=1,  # 7×7 pixels are more than the last maps have
        out_indices=(-1,),
    ),
    head=dict(
        type="VanillaNetClsHead",
        num_classes=10,
        in_channels=400,
        dropout=0.1,
        loss=dict(type="LabelSmoothLoss", label_smooth_val=0.1),
    ),
)
