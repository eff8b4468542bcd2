# A narrow VanillaNet-8 on Fashion-MNIST, trained on two CPU cores.
# Its stem keeps the pixels, and each convolution is trained as a single one: docs/fashion_mnist.md
# says what either gives.
_base_ = ["../_base_/datasets/fashion_mnist.py", "../_base_/schedules/fashion_mnist_15e.py"]
custom_imports = dict(imports=["mmvanilla", "mmvanilla.cls_head"], allow_failed_imports=False)

model = dict(
    type="ImageClassifier",
    backbone=dict(
        type="VanillaNet",
        in_channels=1,
        # 28×28 → stem 27×27 → 13×13 (three stages) → 6×6 → 3×3 → 3×3.
        arch=dict(
            dims=(24, 64, 112, 112, 192, 256, 256),
            strides=(2, 1, 1, 2, 2, 1),
            stem_stride=1,
            stem_padding=1,
        ),
        act_num=1,  # 7×7 pixels are more than the last maps have
        deep_training=False,
        out_indices=(-1,),
    ),
    head=dict(
        type="VanillaNetClsHead",
        num_classes=10,
        in_channels=256,
        dropout=0.0,
        deep_training=False,
        loss=dict(type="LabelSmoothLoss", label_smooth_val=0.1),
    ),
)
