# A small VanillaNet-6 on CIFAR-100: a start for small images, not run to its end.
# MMPretrain downloads the data. The authors publish no such recipe.
#
# Carried over from Fashion-MNIST, where it was measured (docs/fashion_mnist.md, docs/ablations.md):
# a stem of stride 1, which keeps the pixels; a 3×3 series activation; single convolutions, since
# deep training gave less there for more time, with each schedule of λ. Those trainings were
# short; in 200 epochs it may be worth a try: `deep_training=True` in backbone and head, and
#   custom_hooks = [dict(type="DeepTrainingHook", decay_epochs=50)]
# A teacher gave 0.3 points, twice the epochs 0.2 more: vanillanet_fashion_mnist_distilled_30e.py
# shows how.
# Weight decay and augmentation are not from there: nothing but 0.05, flips and shifts was tried.
_base_ = ["../_base_/schedules/small_200e.py", "../_base_/flip_tta.py"]
custom_imports = dict(imports=["mmvanilla", "mmvanilla.cls_head"], allow_failed_imports=False)

model = dict(
    type="ImageClassifier",
    backbone=dict(
        type="VanillaNet",
        # 32×32 → stem 31×31 → 15×15 → 7×7 → 3×3 → 3×3.
        arch=dict(
            dims=(128, 256, 512, 1024, 1024), strides=(2, 2, 2, 1), stem_stride=1, stem_padding=1
        ),
        act_num=1,
        deep_training=False,
        out_indices=(-1,),
    ),
    head=dict(
        type="VanillaNetClsHead",
        num_classes=100,
        in_channels=1024,
        dropout=0.1,
        deep_training=False,
        loss=dict(type="LabelSmoothLoss", label_smooth_val=0.1, num_classes=100),
    ),
    train_cfg=dict(
        augments=[dict(type="Mixup", alpha=0.2), dict(type="CutMix", alpha=1.0)], probs=[0.25, 0.25]
    ),
)

# MMPretrain's CIFAR images are RGB already.
data_preprocessor = dict(
    num_classes=100, mean=[129.304, 124.070, 112.434], std=[68.170, 65.392, 70.418], to_rgb=False
)
train_pipeline = [
    dict(type="RandomCrop", crop_size=32, padding=4),
    dict(type="RandomFlip", prob=0.5, direction="horizontal"),
    dict(
        type="RandAugment",
        policies="timm_increasing",
        num_policies=2,
        total_level=10,
        magnitude_level=7,
        magnitude_std=0.5,
    ),
    dict(type="PackInputs"),
]
tta_pipeline = [_base_.pop("flipped_too")]
train_dataloader = dict(
    batch_size=128,
    num_workers=4,
    persistent_workers=True,
    collate_fn=dict(type="default_collate"),
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(
        type="CIFAR100", data_root="data/cifar100", split="train", pipeline=train_pipeline
    ),
)
val_dataloader = dict(
    batch_size=128,
    num_workers=4,
    persistent_workers=True,
    collate_fn=dict(type="default_collate"),
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="CIFAR100",
        data_root="data/cifar100",
        split="test",
        pipeline=[dict(type="PackInputs")],
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="Accuracy", topk=(1, 5))
test_evaluator = val_evaluator
