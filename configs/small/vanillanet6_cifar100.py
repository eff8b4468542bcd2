# A small VanillaNet-6 on CIFAR-100: a start for small images, not run to its end.
# MMPretrain downloads the data. The published stem would leave 1 pixel of 32×32, so this one
# strides by 2. The authors publish no such recipe.
_base_ = ["../_base_/schedules/small_200e.py", "../_base_/flip_tta.py"]
custom_imports = dict(imports=["mmvanilla", "mmvanilla.cls_head"], allow_failed_imports=False)

model = dict(
    type="ImageClassifier",
    backbone=dict(
        type="VanillaNet",
        # 32×32 → stem 16×16 → 16×16 → 8×8 → 4×4 → 4×4.
        arch=dict(
            dims=(128, 256, 512, 1024, 1024), strides=(1, 2, 2, 1), stem_stride=2, stem_padding=1
        ),
        out_indices=(-1,),
    ),
    head=dict(
        type="VanillaNetClsHead",
        num_classes=100,
        in_channels=1024,
        dropout=0.1,
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
