# Fashion-MNIST: 60,000 + 10,000 grey photographs of garments, 28×28, ten classes. MMPretrain
# downloads the files. Debian and Ubuntu have them as a package, dataset-fashion-mnist, compressed:
#   mkdir -p data/fashion_mnist
#   cp /usr/share/datasets/fashion-mnist/* data/fashion_mnist && gunzip data/fashion_mnist/*
# They are loaded and judged as the small images of shapes are.
_base_ = ["shapes_imagenet.py"]

# Mean and standard deviation of the training images.
data_preprocessor = dict(num_classes=10, mean=[72.94], std=[90.02], to_rgb=False)

data_root = "data/fashion_mnist"
train_pipeline = [
    dict(type="RandomCrop", crop_size=28, padding=2),
    dict(type="RandomFlip", prob=0.5, direction="horizontal"),
    dict(type="PackInputs"),
]
test_pipeline = [dict(type="PackInputs")]
tta_pipeline = _base_.tta_pipeline[-1:]
train_dataloader = dict(
    batch_size=128,
    drop_last=True,
    dataset=dict(
        _delete_=True,
        type="FashionMNIST",
        data_root=data_root,
        split="train",
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=500,
    dataset=dict(
        _delete_=True,
        type="FashionMNIST",
        data_root=data_root,
        split="test",
        test_mode=True,  # without it, MMPretrain reads the training images for this split, too
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
