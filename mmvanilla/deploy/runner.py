#!/usr/bin/env python3
"""Classify, segment or detect with an exported model, without PyTorch: predict.py MODEL IMAGES.

MODEL is an .onnx file or OpenVINO's .xml file that mmvanilla exported; IMAGES are files or folders.
All settings come from the model's metadata. This one file needs numpy, OpenCV and onnxruntime (or
openvino) and nothing else, so it can be copied to a device: `export --with-runner` does that.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

#: Version of the metadata that this file understands.
VERSION = 1
MODEL_SUFFIXES = (".onnx", ".xml")
SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
#: Resizing a narrower image by its shorter side would need gigabytes.
LARGEST_ASPECT_RATIO = 50
INTERPOLATIONS = {  # of OpenCV
    "nearest": cv2.INTER_NEAREST,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
    "lanczos": cv2.INTER_LANCZOS4,
}
_PRECISION = 22  # bits behind the point in Pillow's weights


def _cubic(x: np.ndarray) -> np.ndarray:
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    return np.where(x < 1, near, np.where(x < 2, -0.5 * (((x - 5) * x + 8) * x - 4), 0.0))


# Pillow's filters: how far they reach, and their weights.
_PILLOW: dict[str, tuple[float, Callable[[np.ndarray], np.ndarray]]] = {
    "bilinear": (1.0, lambda x: np.maximum(1 - np.abs(x), 0.0)),
    "bicubic": (2.0, _cubic),
    "lanczos": (3.0, lambda x: np.where((x >= -3) & (x < 3), np.sinc(x) * np.sinc(x / 3), 0.0)),
    "box": (0.5, lambda x: np.where((x > -0.5) & (x <= 0.5), 1.0, 0.0)),
}


class Predictor:
    """An exported model with all that it takes to use it.

    Args:
        path: Path of the ``.onnx`` or ``.xml`` file.
        device: ``'cpu'`` (default), or another device of the runtime, such as ``'cuda'``.

    Raises:
        ValueError: The file is not such a model, or says that this program cannot serve it.
        ImportError: The runtime is not installed.
    """

    def __init__(self, path: str | Path, device: str = "cpu") -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise ValueError(f"no model at {path}; check the path")
        if self.path.suffix not in MODEL_SUFFIXES:
            raise ValueError(f"{path} is neither an .onnx nor an .xml file; export to one of them")
        load = _load_onnx if self.path.suffix == ".onnx" else _load_openvino
        try:
            self.run, metadata = load(self.path, device)
        except ImportError as error:
            name = {".onnx": "onnxruntime", ".xml": "openvino"}[self.path.suffix]
            raise ImportError(
                f"{error.name or name} is missing, which runs {path}; run `pip install {name}`"
            ) from error
        if "runner" not in metadata:
            raise ValueError(
                f"{path} does not say how it is used: it was not exported by this mmvanilla; "
                "export it again with `mmvanilla export`"
            )
        self.settings: dict[str, Any] = json.loads(metadata["runner"])
        if self.settings["version"] != VERSION:
            raise ValueError(
                f"{path} has settings of version {self.settings['version']}, expected {VERSION}; "
                "take the predict.py that was exported with it"
            )
        if "refuses" in self.settings:
            raise ValueError(f"{path} cannot be used here: {self.settings['refuses']}")
        self.task: str = self.settings["task"]
        self.classes: list[str] = self.settings["classes"]
        size = metadata.get("input_size", "any")
        self.size = None if size == "any" else tuple(map(int, size.split("x")))

    def name(self, label: int) -> str:
        """Return the name of a class; its number if the names are not known."""
        return self.classes[label] if label < len(self.classes) else str(label)

    def read(self, path: str | Path) -> np.ndarray:
        """Read an image file as the training did: (H, W, 3), BGR, or (H, W).

        Raises:
            ValueError: The file is not an image.
        """
        data = np.fromfile(path, np.uint8)
        try:
            image = cv2.imdecode(data, self.settings["read_flag"]) if data.size else None
        except cv2.error:
            image = None
        if image is None:
            raise ValueError(f"{path} cannot be read as an image; give another one")
        height, width = image.shape[:2]
        if max(height, width) > LARGEST_ASPECT_RATIO * min(height, width):
            raise ValueError(
                f"{path} has {width}x{height} pixels (width x height); one side may be at most "
                f"{LARGEST_ASPECT_RATIO} times as long as the other, so cut or pad the image"
            )
        return image

    def prepare(self, image: np.ndarray) -> tuple[np.ndarray, tuple[int, int], tuple[float, float]]:
        """Turn an image into the network's input.

        Args:
            image: Result of :meth:`read`.

        Returns:
            The input, (1, C, H, W) float32; its height and width without the padding behind
            normalisation; and how much the last resizing changed width and height.
        """
        settings = self.settings
        if settings["to_float32"]:
            image = image.astype(np.float32)
        scale = (1.0, 1.0)
        for step in settings["steps"]:
            height, width = image.shape[:2]
            image = STEPS[step["type"]](image, step)
            if "interpolation" in step:
                scale = (image.shape[1] / width, image.shape[0] / height)
        pixels = image[..., None] if image.ndim == 2 else image
        if settings["channel_order"] == "RGB" and pixels.shape[2] == 3:
            pixels = pixels[..., ::-1]
        inputs = pixels.transpose(2, 0, 1).astype(np.float32)
        if settings["mean"] is not None:
            mean, std = (np.array(settings[key], np.float32) for key in ("mean", "std"))
            inputs = (inputs - mean[:, None, None]) / std[:, None, None]
        height, width = inputs.shape[1:]
        pad = settings["pad"]
        below, right = (
            max(0, size - old) for size, old in zip(_padded(height, width, pad), (height, width))
        )
        inputs = np.pad(inputs, ((0, 0), (0, below), (0, right)), constant_values=pad["value"])
        if self.size not in (None, inputs.shape[1:]):
            raise ValueError(
                f"{self.path} takes {self.size[0]}x{self.size[1]} pixels alone, the image became "
                f"{inputs.shape[1]}x{inputs.shape[2]}; export without --fixed-size"
            )
        return np.ascontiguousarray(inputs[None]), (height, width), scale

    def __call__(self, image: np.ndarray) -> dict[str, Any]:
        """Predict on one image; see :data:`TASKS` for what is returned.

        Args:
            image: Result of :meth:`read`.
        """
        inputs, shape, scale = self.prepare(image)
        return TASKS[self.task](self, inputs, shape, scale, image.shape[:2])


def _load_onnx(path: Path, device: str) -> tuple[Callable[[np.ndarray], list], dict[str, str]]:
    # ONNX Runtime would report its use to its makers.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    provider = {"cpu": "CPUExecutionProvider"}.get(device, f"{device.upper()}ExecutionProvider")
    if provider not in onnxruntime.get_available_providers():
        raise ValueError(f"this onnxruntime has no {provider}; leave --device out")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=[provider])
    except Exception as error:  # its errors have no common class
        raise ValueError(f"{path} cannot be loaded: {_line(error)}; export it again") from error
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x}), session.get_modelmeta().custom_metadata_map


def _load_openvino(path: Path, device: str) -> tuple[Callable[[np.ndarray], list], dict[str, str]]:
    # OpenVINO would report each import to its makers; without this package it does not.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    try:
        model = openvino.Core().read_model(str(path))
        known = model.has_rt_info(["mmvanilla"])
        entries = model.get_rt_info(["mmvanilla"]).value if known else {}
        options = {"INFERENCE_PRECISION_HINT": "f32"} if device == "cpu" else {}
        request = openvino.compile_model(model, device.upper(), options).create_infer_request()
    except RuntimeError as error:
        raise ValueError(f"{path} cannot be loaded: {_line(error)}; export it again") from error
    metadata = {key: str(value) for key, value in entries.items()}
    return lambda x: [output.copy() for output in request.infer([x]).to_tuple()], metadata


def _line(error: Exception) -> str:
    return ([line.strip() for line in str(error).splitlines() if line.strip()] or ["no details"])[
        -1
    ]


def _resize(image: np.ndarray, size: tuple[int, int], step: dict[str, Any]) -> np.ndarray:
    if step["backend"] == "cv2":
        return cv2.resize(image, size, interpolation=INTERPOLATIONS[step["interpolation"]])
    flatter, narrower = image.shape[0] - size[1], image.shape[1] - size[0]
    # As Pillow: one side after the other, rounded to integers in between; from version 13 on the
    # height comes first where it shrinks most.
    is_turned = step["vertical_first"] and flatter > max(0, 2 * narrower)
    for axis in (0, 1) if is_turned else (1, 0):
        if image.shape[axis] != size[1 - axis]:
            image = _pillow_pass(image, axis, size[1 - axis], *_PILLOW[step["interpolation"]])
    return image


def _pillow_pass(image: np.ndarray, axis: int, length: int, reach: float, weigh: Any) -> np.ndarray:
    old = image.shape[axis]
    scale = old / length
    wide = max(scale, 1.0)
    centre = (np.arange(length) + 0.5) * scale
    first = np.maximum((centre - reach * wide + 0.5).astype(int), 0)
    last = np.minimum((centre + reach * wide + 0.5).astype(int), old)
    index = first[:, None] + np.arange((last - first).max())
    weights = weigh((index - centre[:, None] + 0.5) * (1.0 / wide)) * (index < last[:, None])
    weights /= np.add.accumulate(weights, axis=1)[:, -1:]
    fixed = np.trunc(weights * (1 << _PRECISION) + np.copysign(0.5, weights)).astype(np.int32)
    shape = [1] * image.ndim
    shape[axis] = length
    total: Any = 1 << (_PRECISION - 1)
    for column, weight in zip(np.minimum(index, old - 1).T, fixed.T):
        total = total + image.take(column, axis=axis).astype(np.int32) * weight.reshape(shape)
    return np.clip(total >> _PRECISION, 0, 255).astype(np.uint8)


def _resize_step(image: np.ndarray, step: dict[str, Any]) -> np.ndarray:
    height, width = image.shape[:2]
    if step["scale"] is None:
        x, y = step["scale_factor"]
        target = (int(width * float(x) + 0.5), int(height * float(y) + 0.5))
    else:
        target = tuple(step["scale"])
    if step["keep_ratio"]:
        factor = min(max(target) / max(height, width), min(target) / min(height, width))
        target = (int(width * factor + 0.5), int(height * factor + 0.5))
    return _resize(image, target, step)


def _resize_edge(image: np.ndarray, step: dict[str, Any]) -> np.ndarray:
    (height, width), edge, scale = image.shape[:2], step["edge"], step["scale"]
    if (
        edge == "width"
        or (edge == "short" and width < height)
        or (edge == "long" and width > height)
    ):
        return _resize(image, (scale, int(scale * height / width)), step)
    return _resize(image, (int(scale * width / height), scale), step)


def _center_crop(image: np.ndarray, step: dict[str, Any]) -> np.ndarray:
    width, height = (min(size, old) for size, old in zip(step["size"], image.shape[1::-1]))
    top = max(0, round((image.shape[0] - height) / 2.0))
    left = max(0, round((image.shape[1] - width) / 2.0))
    return image[top : top + height, left : left + width]


def _pad_step(image: np.ndarray, step: dict[str, Any]) -> np.ndarray:
    height, width = image.shape[:2]
    if step["square"]:
        height = width = max(height, width)
    below, right = (
        max(0, new - old) for new, old in zip(_padded(height, width, step), image.shape)
    )
    value = tuple(np.broadcast_to(step["value"], 3 if image.ndim == 3 else 1).tolist())
    return cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_CONSTANT, value=value)


def _padded(height: int, width: int, pad: dict[str, Any]) -> tuple[int, int]:
    if pad["size"] is not None:
        return pad["size"][0], pad["size"][1]
    divisor = pad["divisor"] or 1
    return math.ceil(height / divisor) * divisor, math.ceil(width / divisor) * divisor


#: The steps of a pipeline, by the names of OpenMMLab's.
STEPS: dict[str, Callable[[np.ndarray, dict[str, Any]], np.ndarray]] = {
    "Resize": _resize_step,
    "ResizeEdge": _resize_edge,
    "CenterCrop": _center_crop,
    "Pad": _pad_step,
}


def _interpolate(maps: np.ndarray, size: Sequence[int], align_corners: bool) -> np.ndarray:
    """Resize (K, H, W) as PyTorch's bilinear interpolation does."""
    for axis in (2, 1):
        old, new = maps.shape[axis], size[axis - 1]
        steps = np.arange(new, dtype=np.float32)
        if align_corners:
            at = steps * np.float32((old - 1) / (new - 1) if new > 1 else 0)
        else:
            at = np.maximum(np.float32(old / new) * (steps + np.float32(0.5)) - np.float32(0.5), 0)
        low = np.minimum(at.astype(int), old - 1)
        part = (at - low).clip(0, 1).reshape((-1, 1) if axis == 1 else (-1,))
        high = np.minimum(low + 1, old - 1)
        maps = maps.take(low, axis=axis) * (1 - part) + maps.take(high, axis=axis) * part
    return maps


def _classify(model: Predictor, inputs: np.ndarray, *_: Any) -> dict[str, Any]:
    scores = model.run(inputs)[0][0]
    if model.settings["softmax"]:
        scores = np.exp(scores - scores.max())
        scores /= scores.sum()
    label = int(scores.argmax())
    return dict(
        pred_label=label,
        pred_score=float(scores[label]),
        pred_class=model.name(label),
        pred_scores=scores,
    )


def _segment(
    model: Predictor, inputs: np.ndarray, shape: tuple, scale: tuple, original: tuple
) -> dict[str, Any]:
    settings, size = model.settings, inputs.shape[2:]
    crop, stride = settings["slide"] or (size, size)
    total: Any = 0.0
    count = np.zeros(size, np.float32)
    for top, left in itertools.product(*map(_windows, size, crop, stride)):
        rows, columns = slice(top, top + crop[0]), slice(left, left + crop[1])
        window = np.ascontiguousarray(inputs[:, :, rows, columns])
        logits = model.run(window)[0][0]
        logits = _interpolate(logits, window.shape[2:], settings["align_corners"])
        if count.max() == 0:
            total = np.zeros((len(logits), *size), np.float32)
        total[:, rows, columns] += logits
        count[rows, columns] += 1
    logits = (total / count)[:, : shape[0], : shape[1]]
    logits = _interpolate(logits, original, settings["align_corners"])
    if len(logits) > 1:
        return dict(labels=logits.argmax(axis=0))
    return dict(labels=(1 / (1 + np.exp(-logits[0])) > settings["threshold"]).astype(int))


def _windows(size: int, crop: int, stride: int) -> list[int]:
    """Return where the windows of sliding inference begin; the last ones end with the image."""
    count = max(size - crop + stride - 1, 0) // stride + 1
    return [max(min(index * stride, size - crop), 0) for index in range(count)]


def _detect(
    model: Predictor, inputs: np.ndarray, shape: tuple, scale: tuple, original: tuple
) -> dict[str, Any]:
    dets, labels, *masks = (output[0] for output in model.run(inputs))
    found = (labels >= 0) & (dets[:, 4] > 0)  # the rest fills up
    boxes, scores = dets[found, :4], dets[found, 4]
    boxes[:, 0::2] = boxes[:, 0::2].clip(0, shape[1])  # the graph knows of the padded size alone
    boxes[:, 1::2] = boxes[:, 1::2].clip(0, shape[0])
    boxes = boxes * np.array([1 / scale[0], 1 / scale[1]] * 2, np.float32)
    result = dict(labels=labels[found], scores=scores, bboxes=boxes)
    if masks:
        small = masks[0][found].reshape(-1, *masks[0].shape[-2:])
        pasted = [_paste(*pair, original) for pair in zip(small, boxes)]
        threshold = model.settings["mask_threshold"]
        result["masks"] = np.array([mask >= threshold for mask in pasted]).reshape(-1, *original)
    return result


def _paste(mask: np.ndarray, box: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Draw a mask of (h, w) probabilities into its box of an image, as grid_sample does."""
    weights = []
    for low, high, size, length in zip(box[:2][::-1], box[2:][::-1], mask.shape, shape):
        pixels = np.arange(length, dtype=np.float32)
        at = np.full(length, size / 2 - 0.5, np.float32)
        if high > low:
            at = (pixels + np.float32(0.5) - low) / (high - low) * np.float32(size) - np.float32(
                0.5
            )
        # How much of each row (column) of the mask is in each one of the image; as in MMDetection,
        # nothing is computed far from the box.
        part = np.maximum(1 - np.abs(at[:, None] - np.arange(size, dtype=np.float32)), 0)
        part[(pixels < np.floor(low) - 1) | (pixels >= np.ceil(high) + 1)] = 0
        weights.append(part)
    return weights[0] @ mask @ weights[1].T


#: For each task what a :class:`Predictor` returns: ``classification`` the keys pred_label,
#: pred_score, pred_class and pred_scores; ``segmentation`` labels, (H, W); ``detection`` labels
#: (N,), scores (N,), bboxes (N, 4: x1, y1, x2, y2 in pixels) and, with masks, masks (N, H, W).
TASKS: dict[str, Callable[..., dict[str, Any]]] = {
    "classification": _classify,
    "segmentation": _segment,
    "detection": _detect,
}


def encode_mask(mask: np.ndarray) -> dict[str, Any]:
    """Encode a mask (H, W) as COCO's uncompressed RLE: run lengths down the columns, 0 first."""
    flat = np.concatenate([[False], mask.T.ravel(), [not mask.T.ravel()[-1]]])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    return dict(size=list(mask.shape), counts=np.diff(changes, prepend=0).tolist())


def to_json(model: Predictor, result: dict[str, Any]) -> dict[str, Any]:
    """Turn a prediction into what JSON can hold; maps become numbers of pixels of each class."""
    if model.task == "segmentation":
        labels, pixels = np.unique(result["labels"], return_counts=True)
        shares = {model.name(int(each)): int(count) for each, count in zip(labels, pixels)}
        return dict(size=list(result["labels"].shape), pixels=shares)
    masks = [encode_mask(mask) for mask in result.get("masks", ())]
    rest = {key: value for key, value in result.items() if key != "masks"}
    plain = {
        key: value.tolist() if hasattr(value, "tolist") else value for key, value in rest.items()
    }
    if model.task == "detection":
        plain["names"] = [model.name(label) for label in plain["labels"]]
    return {**plain, "masks": masks} if "masks" in result else plain


def draw(
    model: Predictor, image: np.ndarray, result: dict[str, Any], score_threshold: float = 0.3
) -> np.ndarray:
    """Draw a prediction into a copy of an image; detections below the threshold are left out."""
    picture = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) if image.ndim == 2 else image[..., :3].copy()
    if model.task == "classification":
        _write(picture, f"{result['pred_class']} {result['pred_score']:.2f}", (2, 14), (0, 0, 255))
    elif model.task == "segmentation":
        count = result["labels"].max() + 1
        colours = np.array([_colour(model, label) for label in range(count)], np.uint8)
        picture = cv2.addWeighted(picture, 0.5, colours[result["labels"]], 0.5, 0)
    else:
        for index in np.flatnonzero(result["scores"] >= score_threshold):
            label = int(result["labels"][index])
            colour = _colour(model, label)
            if "masks" in result:
                inside = result["masks"][index]
                picture[inside] = (0.5 * picture[inside] + 0.5 * np.array(colour)).astype(np.uint8)
            x1, y1, x2, y2 = (round(float(value)) for value in result["bboxes"][index])
            cv2.rectangle(picture, (x1, y1), (x2, y2), colour, 1)
            _write(picture, f"{model.name(label)} {result['scores'][index]:.2f}", (x1, y1), colour)
    return picture


def _colour(model: Predictor, label: int) -> tuple[int, int, int]:
    """Return the colour of a class as BGR: the data set's, or one of its own."""
    palette = model.settings["palette"]
    if label < len(palette):
        red, green, blue = palette[label]
        return blue, green, red
    hue = np.array([[[label * 67 % 180, 200, 230]]], np.uint8)
    blue, green, red = cv2.cvtColor(hue, cv2.COLOR_HSV2BGR)[0, 0].tolist()
    return blue, green, red


def _write(picture: np.ndarray, text: str, at: tuple[int, int], colour: Any) -> None:
    cv2.putText(picture, text, (at[0], max(at[1], 12)), cv2.FONT_HERSHEY_SIMPLEX, 0.4, colour, 1)


def find_images(sources: Sequence[str]) -> list[Path]:
    """List image files: those given, and those of the folders given, sorted by name.

    Raises:
        ValueError: A source does not exist, or a folder has no image.
    """
    found: list[Path] = []
    for source in map(Path, sources):
        if not source.exists():
            raise ValueError(f"no image or folder at {source}; check the path")
        inside = [source]
        if source.is_dir():
            inside = sorted(path for path in source.iterdir() if path.suffix.lower() in SUFFIXES)
        if not inside:
            raise ValueError(f"no image ({', '.join(SUFFIXES)}) in {source}; check the path")
        found += inside
    return found


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help=".onnx or .xml file that mmvanilla exported")
    parser.add_argument("images", nargs="+", help="image files, or folders of them")
    parser.add_argument("--out", help="JSON file to write (default: print)")
    parser.add_argument(
        "--out-dir",
        help="folder for pictures; of a segmenter also NAME_labels.png with the classes",
    )
    parser.add_argument(
        "--score-thr", type=float, default=0.3, help="lowest score that is drawn (default: 0.3)"
    )
    parser.add_argument("--device", default="cpu", help="as the runtime calls it (default: cpu)")
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    return parser


def predict(args: argparse.Namespace) -> None:
    """Do what the command line asks; files appear when all images are done, or not at all.

    Raises:
        ValueError: Something does not fit; the message says what, and what to do.
        FileExistsError: A file to write exists, and ``--overwrite`` is not given.
    """
    images = find_images(args.images)
    model = Predictor(args.model, args.device)
    endings = (".png", "_labels.png") if model.task == "segmentation" else (".png",)
    names = [path.stem + ending for path in images for ending in endings] if args.out_dir else []
    if len(set(names)) < len(names):
        raise ValueError("two of the images have one name, so their pictures would too; rename one")
    written = [Path(args.out_dir or "", name) for name in names]
    for path in written + ([Path(args.out)] if args.out else []):
        if path.exists() and not args.overwrite:
            raise FileExistsError(f"{path} exists already; pass --overwrite to replace it")
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        for path in images:
            image = model.read(path)
            result = model(image)
            results.append(dict(image=str(path), task=model.task, **to_json(model, result)))
            if args.out_dir:
                picture = draw(model, image, result, args.score_thr)
                _save(Path(scratch, f"{path.stem}.png"), picture)
                if model.task == "segmentation":
                    labels = result["labels"].astype(
                        np.uint8 if result["labels"].max() < 256 else np.uint16
                    )
                    _save(Path(scratch, f"{path.stem}_labels.png"), labels)
        text = json.dumps(results, indent=None if len(results) > 1 else 1)
        if args.out:
            Path(scratch, "results.json").write_text(text + "\n", encoding="utf-8")
            _move(Path(scratch, "results.json"), Path(args.out))
        for path in sorted(Path(scratch).iterdir()):
            _move(path, Path(args.out_dir, path.name))
    if not args.out:
        print(text)


def _save(path: Path, picture: np.ndarray) -> None:
    path.write_bytes(cv2.imencode(".png", picture)[1].tobytes())


def _move(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.copyfile(path, beside)
    os.replace(beside, target)
    path.unlink()


def main() -> int:
    """Run the command line; an error is one line and exit status 1."""
    args = build_parser().parse_args()
    try:
        predict(args)
    except Exception as error:  # whatever it is, a user of the device reads one line
        print(f"error: {' '.join(str(error).split()) or type(error).__name__}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
