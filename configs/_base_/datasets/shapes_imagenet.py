# The ImageNet layout of the shapes that `mmvanilla make_shapes` draws: a folder for each of the
# six classes, resized to 64 px.
_base_ = ["../flip_tta.py"]

data_preprocessor = dict(
    num_classes=6,
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True,
)

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=64, interpolation="area"),
    dict(type="RandomFlip", prob=0.5, direction="horizontal"),
    dict(type="PackInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=64, interpolation="area"),
    dict(type="PackInputs"),
]
tta_pipeline = [*test_pipeline[:-1], _base_.pop("flipped_too")]
data_root = "data/shapes/imagenet"
train_dataloader = dict(
    batch_size=32,
    # In the main process, where ReseedHook reaches the augmentations' random numbers.
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type="DefaultSampler", shuffle=True),
    collate_fn=dict(type="default_collate"),
    dataset=dict(type="CustomDataset", data_root=f"{data_root}/train", pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=50,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="default_collate"),
    dataset=dict(type="CustomDataset", data_root=f"{data_root}/val", pipeline=test_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="Accuracy", topk=(1,))
test_evaluator = val_evaluator
