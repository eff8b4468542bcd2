# A wider VanillaNet-6 on Fashion-MNIST, with a stem of stride 2 and trained as pairs, as those that
# are published: int8 with one scale a layer loses most in such a network (docs/fashion_mnist.md).
_base_ = [
    "../../../configs/_base_/datasets/fashion_mnist.py",
    "../../../configs/_base_/schedules/fashion_mnist_15e.py",
]
custom_imports = dict(imports=["mmvanilla", "mmvanilla.cls_head"], allow_failed_imports=False)

max_epochs = 10
model = dict(
    type="ImageClassifier",
    backbone=dict(
        type="VanillaNet",
        in_channels=1,
        # 28×28 → stem 14×14 → 14×14 → 7×7 → 3×3 → 3×3.
        arch=dict(
            dims=(48, 96, 208, 400, 400), strides=(1, 2, 2, 1), stem_stride=2, stem_padding=1
        ),
        act_num=1,
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
optim_wrapper = dict(optimizer=dict(lr=3e-3))
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = [
    _base_.param_scheduler[0],
    dict(_base_.param_scheduler[1], end=max_epochs),
]
custom_hooks = [dict(type="DeepTrainingHook", decay_epochs=5)]
