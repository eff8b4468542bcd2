# The COCO layout of the scenes that projects.toy_data.make_garments makes: boxes and masks of ten
# classes, read as the shapes are.
_base_ = ["../../../../configs/_base_/datasets/shapes_coco.py"]

data_root = "data/garments/coco/"
metainfo = dict(
    classes=(
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    palette=[
        *[(220, 20, 60), (0, 114, 189), (60, 179, 75), (237, 177, 32), (126, 47, 142)],
        *[(77, 190, 238), (245, 130, 48), (154, 99, 36), (240, 50, 230), (70, 153, 144)],
    ],
)
# Images of 96×96: the photographs of garments have 28.
image_size = 96
test_pipeline = [
    dict(step, scale=(image_size, image_size)) if step["type"] == "Resize" else step
    for step in _base_.test_pipeline
]
train_dataloader = dict(dataset=dict(data_root=data_root, metainfo=metainfo))
val_dataloader = dict(dataset=dict(data_root=data_root, metainfo=metainfo, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + "annotations/instances_val.json")
test_evaluator = val_evaluator
