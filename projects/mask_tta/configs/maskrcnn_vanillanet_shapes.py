# The small Mask R-CNN on made-up shapes, and `test --tta`: three sizes, each also flipped.
_base_ = ["../../../configs/shapes/maskrcnn_vanillanet_shapes.py"]
custom_imports = dict(imports=["mmvanilla", "projects.mask_tta.mask_tta"])

tta_model = dict(
    type="MaskTTAModel", tta_cfg=dict(nms=dict(type="nms", iou_threshold=0.5), max_per_img=100)
)
tta_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(
        type="TestTimeAug",
        transforms=[
            [dict(type="Resize", scale=(side, side), keep_ratio=True) for side in (128, 96, 160)],
            [dict(type="RandomFlip", prob=prob) for prob in (0.0, 1.0)],
            [dict(type="LoadAnnotations", with_bbox=True)],
            [
                dict(
                    type="PackDetInputs",
                    meta_keys=(
                        *("img_id", "img_path", "ori_shape", "img_shape"),
                        *("scale_factor", "flip", "flip_direction"),
                    ),
                )
            ],
        ],
    ),
]
