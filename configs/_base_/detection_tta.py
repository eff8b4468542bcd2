# --tta of the detectors: each scale also flipped. A config puts its scales before
# `flipped_and_packed`, which it takes out of here by `_base_.pop`.
tta_model = dict(
    type="DetTTAModel", tta_cfg=dict(nms=dict(type="nms", iou_threshold=0.5), max_per_img=100)
)
flipped_and_packed = [
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
]
