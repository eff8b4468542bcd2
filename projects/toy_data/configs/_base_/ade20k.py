# The ADE20K layout of the scenes that projects.toy_data.make_garments makes: label maps of the
# background and ten classes, read as the shapes are.
_base_ = ["../../../../configs/_base_/datasets/shapes_ade20k.py"]

data_root = "data/garments/ade20k/"
metainfo = dict(
    classes=(
        *("background", "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    palette=[
        (128, 128, 128),
        *[(220, 20, 60), (0, 114, 189), (60, 179, 75), (237, 177, 32), (126, 47, 142)],
        *[(77, 190, 238), (245, 130, 48), (154, 99, 36), (240, 50, 230), (70, 153, 144)],
    ],
)
train_dataloader = dict(
    # Epochs as for detection, instead of an endless stream.
    sampler=dict(_delete_=True, type="DefaultSampler", shuffle=True),
    dataset=dict(data_root=data_root, metainfo=metainfo),
)
val_dataloader = dict(dataset=dict(data_root=data_root, metainfo=metainfo))
test_dataloader = val_dataloader
