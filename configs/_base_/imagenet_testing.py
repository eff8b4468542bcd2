# The authors' classifier and test set: ImageNet-1k at 224 px, bicubic, crop ratio 0.875.
_base_ = ["mmpretrain::_base_/default_runtime.py", "flip_tta.py"]
custom_imports = dict(imports=["mmvanilla", "mmvanilla.cls_head"], allow_failed_imports=False)

model = dict(
    type="ImageClassifier",
    backbone=dict(type="VanillaNet", arch="5", out_indices=(-1,)),
    head=dict(
        type="VanillaNetClsHead",
        num_classes=1000,
        in_channels=4096,
        dropout=0.05,
        # Binary cross entropy on soft targets. MMPretrain sums over the classes; theirs is the
        # mean, hence the weight.
        loss=dict(
            type="LabelSmoothLoss",
            label_smooth_val=0.1,
            num_classes=1000,
            mode="original",
            use_sigmoid=True,
            loss_weight=1 / 1000,
        ),
    ),
)

data_preprocessor = dict(
    num_classes=1000,
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True,
)
test_pipeline = [
    dict(type="LoadImageFromFile"),
    # Crop ratio 0.875: 224 / 256.
    dict(type="ResizeEdge", scale=256, edge="short", backend="pillow", interpolation="bicubic"),
    dict(type="CenterCrop", crop_size=224),
    dict(type="PackInputs"),
]
tta_pipeline = [*test_pipeline[:-1], _base_.pop("flipped_too")]
val_dataloader = dict(
    batch_size=128,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    collate_fn=dict(type="default_collate"),
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(type="ImageNet", data_root="data/imagenet", split="val", pipeline=test_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="Accuracy", topk=(1, 5))
test_evaluator = val_evaluator
val_cfg = dict()
test_cfg = dict()
