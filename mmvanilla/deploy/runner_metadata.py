"""Describe for the runner how images are read and what a model's outputs mean."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import TRANSFORMS
from torch import nn

from mmvanilla.apis.config import use_scope
from mmvanilla.apis.images import ImageReader, describe_preprocessing
from mmvanilla.apis.model import TensorModel, input_channels
from mmvanilla.deploy import runner
from mmvanilla.deploy.exportable import resolve_part, score_function
from mmvanilla.deploy.runner_steps import STEPS, prepare_image
from mmvanilla.utils.numerics import relative_difference

#: What the runner needs to know of each step of a pipeline: attributes of the toolboxes' classes.
_ATTRIBUTES = {
    "Resize": ("scale", "scale_factor", "keep_ratio", "backend", "interpolation"),
    "ResizeEdge": ("edge", "scale", "backend", "interpolation"),
    "CenterCrop": ("crop_size",),
    "Pad": ("size", "size_divisor", "pad_to_square", "pad_val"),
}
_TRIED_SIZES = ((96, 130), (150, 70))


def describe_for_runner(
    model: nn.Module,
    cfg: Config,
    meta: dict[str, Any],
    part: str | None = None,
    softmax: bool = False,
) -> dict[str, str]:
    """Make the metadata entries ``classes`` and ``runner`` of a model in eval mode on the CPU.

    On two images the runner must make the input that the config's pipeline makes, bit by bit, and
    find what the model's own ``predict`` finds. What it cannot do is no error: the entry says it.
    ``meta`` is the checkpoint's; ``part`` and ``softmax`` are those of ``make_exportable``.
    """
    known = describe_data(meta)
    try:
        settings = {**known, **_describe_task(model, part), **describe_reading(model, cfg)}
        _try_settings(settings, model, cfg)
        if softmax:
            settings["scores_of"] = None
    except Exception as error:  # whatever a toolbox raises
        reason = " ".join(str(error).split()) or type(error).__name__
        settings = {**known, "refuses": reason}
    return {"runner": json.dumps(settings), "classes": json.dumps(known["classes"])}


def refusal(entries: dict[str, str]) -> str | None:
    """Return why the runner will refuse a file with this metadata; None if it serves it."""
    return json.loads(entries["runner"]).get("refuses")


def describe_data(meta: dict[str, Any]) -> dict[str, Any]:
    """Return the names and colours of the classes that a checkpoint's ``meta`` has."""
    dataset_meta = meta.get("dataset_meta") or {}
    classes = dataset_meta.get("classes") or ()
    classes = [classes] if isinstance(classes, str) else [str(name) for name in classes]
    palette = [colour for colour in dataset_meta.get("palette") or () if len(colour) == 3]
    palette = [[int(value) for value in colour] for colour in palette]
    return dict(version=runner.VERSION, classes=classes, palette=palette)


def _describe_task(model: Any, part: str | None) -> dict[str, Any]:
    part = resolve_part(model, part)
    if part == "classifier":
        scores_of, head = score_function(model), model.head
        return dict(
            task="classification",
            scores_of=scores_of,
            multi_label=scores_of == "sigmoid",
            threshold=getattr(head, "thr", None),
            topk=head.topk if scores_of == "sigmoid" else None,
        )
    if part == "segmenter":
        if model.align_corners:
            raise ValueError("its maps are resized with align_corners")
        test_cfg = model.test_cfg or {}
        sliding = test_cfg.get("mode") == "slide"
        return dict(
            task="segmentation",
            slide=[test_cfg[key] for key in ("crop_size", "stride")] if sliding else None,
            threshold=getattr(model.decode_head, "threshold", None),
        )
    raise ValueError("it gives the features of a backbone, which are no predictions")


def describe_reading(model: nn.Module, cfg: Config) -> dict[str, Any]:
    """Describe how a file becomes an input; a ValueError for a step that the runner lacks."""
    from mmcv.image.geometric import cv2_interp_codes, pillow_interp_codes
    from mmcv.image.io import imread_flags

    use_scope(cfg)
    load, *rest = (TRANSFORMS.build(dict(step)) for step in ImageReader(model, cfg).steps)
    if type(load).__name__ != "LoadImageFromFile" or load.imdecode_backend not in (None, "cv2"):
        raise ValueError("its pipeline does not begin with LoadImageFromFile, by OpenCV")
    steps = []
    for step in rest:
        name = type(step).__name__
        if (
            getattr(step, "auto_pad", False)
            or getattr(step, "padding_mode", "constant") != "constant"
        ):
            raise ValueError(
                f"its {name} has auto_pad, or pads with something else than a constant"
            )
        if name in _ATTRIBUTES:
            steps.append(dict(type=name, **{key: getattr(step, key) for key in _ATTRIBUTES[name]}))
            if "backend" in steps[-1]:
                codes = pillow_interp_codes if step.backend == "pillow" else cv2_interp_codes
                steps[-1]["interpolation"] = int(codes[step.interpolation])
        elif not name.startswith(("Pack", "Load")):
            raise ValueError(f"its pipeline has the step {name}; known are {', '.join(STEPS)}")
    preprocessing = describe_preprocessing(model)
    preprocessor: Any = getattr(model, "data_preprocessor", None)
    # mmseg pads test images only if its test_cfg says so.
    pad: Any = getattr(preprocessor, "test_cfg", None) or {}
    size = pad.get("size")
    return dict(
        channels=input_channels(model),
        read_flag=int(imread_flags[load.color_type]),
        to_float32=bool(load.to_float32),
        steps=steps,
        **{key: preprocessing[key] for key in ("channel_order", "mean", "std")},
        pad=dict(
            size=size and size[::-1],
            size_divisor=pad.get("size_divisor") or getattr(preprocessor, "pad_size_divisor", None),
            pad_val=getattr(preprocessor, "pad_val", getattr(preprocessor, "pad_value", 0)),
        ),
    )


def _try_settings(settings: dict[str, Any], model: Any, cfg: Config) -> None:
    """Let the runner and the toolbox predict on two images, and compare."""
    network, reader = TensorModel(model), ImageReader(model, cfg)

    def run(images: np.ndarray) -> list[np.ndarray]:
        return [network(torch.from_numpy(images)).numpy()]

    predictor = runner.Predictor(run, json.loads(json.dumps(settings)))
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        path = Path(folder, "image.png")
        channels = settings["channels"] if settings["read_flag"] == cv2.IMREAD_UNCHANGED else 3
        for size in _TRIED_SIZES:
            cv2.imwrite(str(path), rng.integers(0, 256, (*size, channels), dtype=np.uint8))
            inputs, samples = reader.batch(path)
            (expected,) = model(inputs, samples, mode="predict")
            image = predictor.read(path)
            if not np.array_equal(prepare_image(image, predictor.settings)[0], inputs):
                raise ValueError("its pipeline or data preprocessor changes images in another way")
            if not _agree(expected, predictor(image)):
                raise ValueError("its predict makes something else of the network's outputs")


def _agree(expected: Any, found: dict[str, Any]) -> bool:
    if "pred_scores" in found:
        labels = np.atleast_1d(found["pred_label"]).tolist()
        same = sorted(labels) == sorted(expected.pred_label.flatten().tolist())
        return same and relative_difference(expected.pred_score, found["pred_scores"]) < 1e-4
    labels = expected.pred_sem_seg.data[0].numpy()
    # Where two classes are equal within float32, either may win.
    return labels.shape == found["labels"].shape and (labels != found["labels"]).mean() < 1e-3
