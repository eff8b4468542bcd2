"""Make MMDeploy's own kind of config for a detector of ours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmengine.config import Config

#: Name of the file that MMDeploy writes.
FILE = "end2end.onnx"
_OPSET = 16  # the first one whose RoiAlign has mmcv's `aligned`
_STAGES = ("rpn", "rcnn")


def nms_of(cfg: Config) -> Iterator[tuple[str, Any]]:
    """List the entries ``nms`` of a detector's ``test_cfg``, each with its place."""
    test_cfg = cfg.model.get("test_cfg") or {}
    for where, part in (("", test_cfg), *((f"{name}.", test_cfg.get(name)) for name in _STAGES)):
        if isinstance(part, dict) and "nms" in part:
            yield f"test_cfg.{where}nms", part["nms"]


def make_recipe(cfg: Config, has_masks: bool) -> Config:
    """Make MMDeploy's own kind of deploy config, with the thresholds of the model's test_cfg."""
    test_cfg = cfg.model.test_cfg
    last = test_cfg.get("rcnn", test_cfg)
    outputs = ["dets", "labels", *(["masks"] if has_masks else [])]
    axes: dict[str, dict[int, str]] = {"input": {0: "batch", 2: "height", 3: "width"}}
    axes.update({name: {0: "batch", 1: "detections"} for name in outputs})
    if has_masks:
        axes["masks"] |= {2: "mask_height", 3: "mask_width"}
    return Config(
        dict(
            onnx_config=dict(
                type="onnx",
                export_params=True,
                keep_initializers_as_inputs=False,
                opset_version=_OPSET,
                save_file=FILE,
                input_names=["input"],
                output_names=outputs,
                input_shape=None,
                optimize=True,
                dynamic_axes=axes,
            ),
            codebase_config=dict(
                type="mmdet",
                task="ObjectDetection",
                model_type="end2end",
                post_processing=dict(
                    score_threshold=last.score_thr,
                    confidence_threshold=0.005,
                    iou_threshold=last.nms.iou_threshold,
                    max_output_boxes_per_class=last.max_per_img,
                    pre_top_k=-1,  # MMDetection has no such limit on all levels together
                    keep_top_k=last.max_per_img,
                    background_label_id=-1,
                    export_postprocess_mask=False,
                ),
            ),
            backend_config=dict(type="onnxruntime"),
        )
    )
