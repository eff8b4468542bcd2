#!/usr/bin/env python3
"""Classify or segment with an exported model, without PyTorch: predict.py MODEL IMAGES.

MODEL is a file that mmvanilla exported (.onnx, .xml, .param, .tflite or .pte), whose metadata has
all settings; IMAGES are files or folders. `export --with-runner` writes this program as one file,
predict.py, which needs numpy, OpenCV, the runtime of the file, and Pillow for a model whose
pipeline resizes by it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

try:
    import cv2
    import numpy as np
except ImportError as error:  # libGL, for one, is not on every server
    _REASON = f"{error}; run `pip install numpy opencv-python-headless`, which needs no libGL"
    if __name__ == "__main__":
        sys.exit(f"error: {_REASON}")
    raise ImportError(_REASON) from error

from mmvanilla.deploy.runner_runtimes import RUNTIMES, RunFile
from mmvanilla.deploy.runner_steps import prepare_image
from mmvanilla.deploy.runner_tasks import TASKS, as_picture

#: Version of the metadata that this program understands.
VERSION = 3
SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")


class Predictor:
    """An exported model with all that it takes to use it.

    ``settings`` are entry ``runner`` of its metadata (a ValueError if they refuse), and ``size``
    is the only height and width in pixels that it takes, such as ``'64x96'``, or ``'any'``.
    """

    def __init__(
        self, run: RunFile, settings: dict[str, Any], size: str = "any", name: str = "the model"
    ) -> None:
        if settings["version"] != VERSION:
            raise ValueError(f"{name} was exported for another version of predict.py; take that")
        if "refuses" in settings:
            raise ValueError(f"{name} cannot be used here: {settings['refuses']}")
        if settings["task"] not in TASKS:
            raise ValueError(f"{name} is for {settings['task']}; known are {', '.join(TASKS)}")
        self.run, self.settings, self.size, self.name = run, settings, size, name
        self.task = TASKS[settings["task"]]

    @classmethod
    def load(cls, path: str | Path, device: str = "cpu") -> Predictor:
        """Open a file, or raise a ValueError or ImportError; the runtime names the devices."""
        path = Path(path)
        if not path.is_file():
            raise ValueError(f"no model at {path}; check the path")
        if path.suffix not in RUNTIMES:
            raise ValueError(f"{path} ends in none of {', '.join(RUNTIMES)}; export to one of them")
        open_file, package = RUNTIMES[path.suffix]
        try:
            run, metadata = open_file(path, device.lower())
        except ImportError as error:
            raise ImportError(f"{path}: {error}; run `pip install {package}`") from error
        if "runner" not in metadata:
            raise ValueError(f"{path} does not say how it is used; use `mmvanilla export`")
        return cls(run, json.loads(metadata["runner"]), metadata["input_size"], str(path))

    def class_name(self, label: int) -> str:
        """Return the name of a class; its number if the names are not known."""
        classes = self.settings["classes"]
        return classes[label] if label < len(classes) else str(label)

    def read(self, path: str | Path) -> np.ndarray:
        """Read an image file as the training did: (H, W), or (H, W, C) as BGR."""
        data = np.fromfile(path, np.uint8)
        try:
            image = cv2.imdecode(data, self.settings["read_flag"]) if data.size else None
        except cv2.error:
            image = None
        if image is None:
            raise ValueError("it cannot be read as an image; give another one")
        return image

    def __call__(self, image: np.ndarray) -> dict[str, Any]:
        """Predict on an image that :meth:`read` gave; see ``TASKS`` for what it returns."""
        inputs, shape = prepare_image(image, self.settings)
        found = f"{inputs.shape[2]}x{inputs.shape[3]}"
        if self.size not in ("any", found):
            raise ValueError(
                f"{self.name} takes images of {self.size} pixels, and this one became {found}; "
                "export the model with open sizes"
            )
        return self.task.predict(self, inputs, shape, image.shape[:2])


def find_images(sources: Sequence[str]) -> list[Path]:
    """List image files: those given, and those of the folders given, sorted by name."""
    found: list[Path] = []
    for source in map(Path, sources):
        inside = [source]
        if source.is_dir():
            files = (path for path in source.iterdir() if path.is_file())
            inside = sorted(path for path in files if path.suffix.lower() in SUFFIXES)
        if not source.exists() or not inside:
            raise ValueError(f"no image ({', '.join(SUFFIXES)}) at {source}; check the path")
        found += inside
    return found


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="file that mmvanilla exported")
    parser.add_argument("images", nargs="+", help="image files, or folders of them")
    parser.add_argument("--out", help="JSON file to write (default: print)")
    parser.add_argument("--out-dir", help="folder for pictures (of a segmenter also label maps)")
    parser.add_argument("--device", default="cpu", help="as the runtime calls it (default: cpu)")
    return parser


def predict(args: argparse.Namespace) -> None:
    """Do what the command line asks; no existing file is replaced, and each one appears whole.

    Beside others, an image that fails has an ``error`` in the JSON text; a ValueError comes last.
    """
    images = find_images(args.images)
    model = Predictor.load(args.model, args.device)
    endings = model.task.endings if args.out_dir else ()
    pictures = [Path(args.out_dir, path.stem + end) for path in images for end in endings]
    outputs = [os.path.abspath(path) for path in [*pictures, args.out] if path]
    if len(set(outputs)) < len(outputs):
        raise ValueError("two of the files to write have one name; rename an image or --out")
    for output in outputs:
        if os.path.exists(output):
            raise FileExistsError(f"{output} exists already; choose another place")
    results, failed = [], []
    for path in images:
        try:
            image = model.read(path)
            result = model(image)
        except Exception as error:  # whatever OpenCV or a runtime raises
            failed.append(error)
            reason = f"{path}: {' '.join(str(error).split()) or type(error).__name__}"
            results.append(dict(image=str(path), error=reason))
            continue
        found = model.task.to_json(model, result)
        results.append(dict(image=str(path), task=model.settings["task"], **found))
        drawn = model.task.draw(model, as_picture(image), result) if endings else ()
        for end, picture in zip(endings, drawn):
            _write(Path(args.out_dir, path.stem + end), cv2.imencode(".png", picture)[1].tobytes())
    text = json.dumps(results, indent=None if len(results) > 1 else 1)
    wrong = "; ".join([entry["error"] for entry in results if "error" in entry][:3])
    if len(failed) < len(images):
        if args.out:
            _write(Path(args.out), f"{text}\n".encode())
        else:
            print(text)
    if failed:
        raise ValueError(f"{wrong}; {len(failed)} of {len(images)} images failed") from failed[0]


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(data)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


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
