"""Describe for the runner how images are read and what a model's outputs mean."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import TRANSFORMS, init_default_scope
from PIL import Image
from PIL import __version__ as PIL_VERSION
from torch import nn

from mmvanilla.apis.images import describe_preprocessing
from mmvanilla.deploy import runner
from mmvanilla.deploy.exportable import resolve_part

_TOOLBOXES = ("mmcv", "mmdet", "mmseg", "mmpretrain")
_READ_FLAGS = ("color", "grayscale", "unchanged", "color_ignore_orientation")
_PILLOW = ("bilinear", "bicubic", "lanczos", "box")


class Unsupported(ValueError):
    """A model needs something that the runner cannot do; the message says what."""


def describe_for_runner(
    model: nn.Module,
    cfg: Config,
    meta: dict[str, Any],
    part: str | None = None,
    softmax: bool = False,
) -> dict[str, str]:
    """Make the metadata entries ``classes`` and ``runner``, which a device needs.

    What the runner cannot do makes no error here: the entry says it, and the runner refuses.

    Args:
        model: Model of any toolbox.
        cfg: Config of the model.
        meta: Entry ``meta`` of its checkpoint.
        part: Exported part, as in :func:`mmvanilla.deploy.exportable.make_exportable`, or
            ``'detector'``. None: the one that is exported by default.
        softmax: Whether the graph of a classifier gives probabilities. Default: False.

    Returns:
        Entries for the metadata of an exported file, as JSON.
    """
    dataset_meta = meta.get("dataset_meta") or {}
    classes = dataset_meta.get("classes") or ()
    classes = [classes] if isinstance(classes, str) else [str(name) for name in classes]
    settings: dict[str, Any] = {"version": runner.VERSION}
    try:
        settings.update(_task(model, part, softmax))
        settings.update(_reading(model, cfg, settings["task"]))
        palette = dataset_meta.get("palette") or ()
        settings["classes"] = classes
        settings["palette"] = [
            [int(value) for value in colour] for colour in palette if not isinstance(colour, str)
        ]
    except Unsupported as error:
        settings = {"version": runner.VERSION, "refuses": str(error)}
    entries = {"runner": json.dumps(settings)}
    if classes:
        entries["classes"] = json.dumps(classes)
    return entries


def refusal(entries: dict[str, str]) -> str | None:
    """Return why the runner will refuse a file with this metadata; None if it serves it."""
    return json.loads(entries["runner"]).get("refuses")


def _task(model: Any, part: str | None, softmax: bool) -> dict[str, Any]:
    part = part if part == "detector" else resolve_part(model, part)
    if part == "backbone":
        raise Unsupported("it gives the features of a backbone, which are no predictions")
    if part == "detector":
        head = getattr(getattr(model, "roi_head", None), "mask_head", None)
        rcnn = (model.test_cfg or {}).get("rcnn") or {}
        threshold = rcnn.get("mask_thr_binary", 0.5) if head is not None else 0.5
        if threshold < 0:
            raise Unsupported("its masks are not binary (mask_thr_binary is negative)")
        return dict(task="detection", mask_threshold=threshold)
    if part == "classifier":
        from mmpretrain.models.heads import ClsHead

        if not isinstance(model.head, ClsHead):
            raise Unsupported(f"its head, {type(model.head).__name__}, is no ClsHead")
        return dict(task="classification", softmax=not softmax)
    from mmseg.models import EncoderDecoder
    from mmseg.models.decode_heads.decode_head import BaseDecodeHead

    head = model.decode_head
    is_known = type(model) is EncoderDecoder and isinstance(head, BaseDecodeHead)
    if not is_known or type(head).predict is not BaseDecodeHead.predict:
        raise Unsupported(
            f"{type(model).__name__} with {type(head).__name__} turns logits into classes in a way "
            "of its own"
        )
    test_cfg = model.test_cfg or {}
    slide = None
    if test_cfg.get("mode", "whole") == "slide":
        slide = [[int(value) for value in test_cfg[key]] for key in ("crop_size", "stride")]
    return dict(
        task="segmentation",
        slide=slide,
        align_corners=bool(model.align_corners),
        threshold=head.threshold,
    )


def _reading(model: Any, cfg: Config, task: str) -> dict[str, Any]:
    preprocessing = describe_preprocessing(model)
    load, *steps = _transforms(cfg)
    settings = dict(
        read_flag=_read_flag(load),
        to_float32=bool(load.to_float32),
        steps=[_step(step, task) for step in steps],
        channel_order=preprocessing["channel_order"],
        mean=preprocessing["mean"],
        std=preprocessing["std"],
        pad=_padding(getattr(model, "data_preprocessor", None), task),
    )
    names = [step["type"] for step in settings["steps"]]
    if settings["to_float32"] and any(s.get("backend") == "pillow" for s in settings["steps"]):
        raise Unsupported("its pipeline resizes float images with Pillow")
    if "Pad" in names and task == "detection" and names.index("Pad") < len(names) - 1:
        raise Unsupported("its pipeline pads before its last step")
    return settings


def _transforms(cfg: Config) -> list[Any]:
    """Build the steps of the test pipeline, from the one that reads the file on."""
    dataset = cfg.get("test_dataloader", {}).get("dataset", {})
    while "dataset" in dataset:
        dataset = dataset["dataset"]
    if "pipeline" not in dataset:
        raise Unsupported("its config has no test_dataloader.dataset.pipeline, which reads images")
    init_default_scope(cfg.get("default_scope", "mmengine"))
    built = []
    for step in dataset["pipeline"]:
        kind = step["type"] if isinstance(step["type"], str) else step["type"].__name__
        name = kind.rpartition(".")[2]
        if name.startswith("Pack") or name in ("LoadAnnotations", "LoadPanopticAnnotations"):
            continue
        try:
            transform = TRANSFORMS.build(dict(step))
        except Exception as error:
            raise Unsupported(
                f"the step {kind} of its pipeline cannot be built: {error}"
            ) from error
        root = type(transform).__module__.partition(".")[0]
        if root not in _TOOLBOXES or type(transform).__name__ != name:
            raise Unsupported(f"its pipeline has the step {kind}, which is none of OpenMMLab's")
        built.append(transform)
    if not built or type(built[0]).__name__ != "LoadImageFromFile":
        raise Unsupported("its pipeline does not begin with LoadImageFromFile")
    return built


def _read_flag(load: Any) -> int:
    from mmcv.image.io import imread_flags

    if load.imdecode_backend not in (None, "cv2"):
        raise Unsupported(f"its pipeline reads images with {load.imdecode_backend}, not OpenCV")
    if load.color_type not in _READ_FLAGS:
        raise Unsupported(f"its pipeline reads images with color_type {load.color_type!r}")
    return int(imread_flags[load.color_type])


def _step(transform: Any, task: str) -> dict[str, Any]:
    name = type(transform).__name__
    if name not in _STEPS:
        raise Unsupported(f"its pipeline has the step {name}; known are {', '.join(_STEPS)}")
    if name == "CenterCrop" and task != "classification":
        raise Unsupported("its pipeline crops images, so results would not lie where they belong")
    return {"type": name, **_STEPS[name](transform)}


def _resampling(transform: Any) -> dict[str, Any]:
    backend = transform.backend or "cv2"
    known = runner.INTERPOLATIONS if backend == "cv2" else _PILLOW
    if transform.interpolation not in known:
        raise Unsupported(f"its pipeline resizes by {transform.interpolation} with {backend}")
    settings = dict(backend=backend, interpolation=transform.interpolation)
    if backend == "pillow":
        settings["vertical_first"] = _pillow_shrinks_height_first()
    return settings


@functools.cache
def _pillow_shrinks_height_first() -> bool:
    """Find out in which order the Pillow of this environment resizes the two sides."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 20, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(pixels).resize((30, 10), Image.Resampling.BICUBIC))
    step = dict(type="Resize", scale=(30, 10), keep_ratio=False, backend="pillow")
    for first in (True, False):
        settings = dict(step, interpolation="bicubic", vertical_first=first)
        if np.array_equal(runner.STEPS["Resize"](pixels, settings), expected):
            return first
    raise Unsupported(f"Pillow {PIL_VERSION} resizes in a way that it does not know")


def _resize(transform: Any) -> dict[str, Any]:
    factor = transform.scale_factor
    return dict(
        scale=None if transform.scale is None else [int(value) for value in transform.scale],
        scale_factor=None if factor is None else [float(value) for value in factor],
        keep_ratio=bool(transform.keep_ratio),
        **_resampling(transform),
    )


def _resize_edge(transform: Any) -> dict[str, Any]:
    return dict(edge=transform.edge, scale=int(transform.scale), **_resampling(transform))


def _center_crop(transform: Any) -> dict[str, Any]:
    if transform.auto_pad:
        raise Unsupported("its pipeline pads images that are smaller than the crop (auto_pad)")
    return dict(size=[int(value) for value in transform.crop_size])


def _pad(transform: Any) -> dict[str, Any]:
    if transform.padding_mode != "constant":
        raise Unsupported(f"its pipeline pads images by {transform.padding_mode}")
    value: Any = transform.pad_val.get("img", 0)
    return dict(
        size=None if transform.size is None else [int(side) for side in transform.size[::-1]],
        divisor=transform.size_divisor,
        square=bool(transform.pad_to_square),
        value=value if isinstance(value, int | float) else [float(each) for each in value],
    )


_STEPS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "Resize": _resize,
    "ResizeEdge": _resize_edge,
    "CenterCrop": _center_crop,
    "Pad": _pad,
}


def _padding(preprocessor: Any, task: str) -> dict[str, Any]:
    """Describe what the data preprocessor adds below and right of a normalised image."""
    if task == "segmentation":
        # mmseg pads test images only if its test_cfg says so.
        test_cfg = getattr(preprocessor, "test_cfg", None) or {}
        size, divisor = test_cfg.get("size"), test_cfg.get("size_divisor")
        value = getattr(preprocessor, "pad_val", 0)
        size = None if size is None else [int(side) for side in size]
    else:
        size, divisor = None, getattr(preprocessor, "pad_size_divisor", 1)
        value = getattr(preprocessor, "pad_value", 0)
    return dict(size=size, divisor=divisor, value=float(value))
