"""Draw what a model predicts, as PNG files."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import torch
from mmengine.registry import VISUALIZERS

from mmvanilla.apis.config import load_config, tested_dataset, toolbox_of
from mmvanilla.apis.images import ImageReader
from mmvanilla.apis.model import load_model
from mmvanilla.checkpoints.writing import check_writable, write_whole

#: What draws in each toolbox.
DRAWERS = {
    "mmdet": "mmdet.DetLocalVisualizer",
    "mmseg": "mmseg.SegLocalVisualizer",
    "mmpretrain": "mmpretrain.UniversalVisualizer",
}


def draw_predictions(
    config: str,
    checkpoint: str,
    images: Sequence[Path],
    out_dir: str | Path,
    device: str = "cpu",
    score_threshold: float = 0.3,
    overwrite: bool = False,
) -> list[Path]:
    """Draw predictions into images, and write them as PNG files.

    Args:
        config: Path or name of the config of a detector, segmenter or classifier.
        checkpoint: Path or address of its weights.
        images: Paths of the image files.
        out_dir: Folder to write to.
        device: Device that the model runs on.
        score_threshold: Lowest score of the detections that are drawn.
        overwrite: Whether to replace existing pictures.

    Returns:
        Paths of the pictures.

    Raises:
        FileExistsError: A picture exists already and ``overwrite`` is False.
        ValueError: The config is not of one of the three toolboxes, or a file is not an image.
        RuntimeError: The weights do not fit.
    """
    cfg = load_config(config)
    scope = toolbox_of(cfg)
    if scope not in DRAWERS:
        raise ValueError(f"{config} is of {scope}; give a config of {', '.join(DRAWERS)}")
    pictures = [Path(out_dir) / f"{image.stem}.png" for image in images]
    check_writable(pictures, overwrite, [config, checkpoint, *images])
    model: Any
    model, meta = load_model(cfg, checkpoint, device)
    reader = ImageReader(model, cfg)
    visualizer: Any = VISUALIZERS.build(dict(type=DRAWERS[scope], name="visualize"))
    known = tested_dataset(cfg).get("metainfo") or {}  # the classes' names and colours
    visualizer.dataset_meta = {**known, **(meta.get("dataset_meta") or {})}
    for image, picture in zip(images, pictures, strict=True):
        inputs, samples = reader.batch(image)
        with torch.no_grad():
            sample = model.predict(inputs, samples)[0].cpu()
        pixels = mmcv.imread(str(image), channel_order="rgb")
        with tempfile.TemporaryDirectory() as folder:
            drawn = Path(folder, "drawn.png")
            _draw(visualizer, scope, pixels, sample, str(drawn), score_threshold)
            write_whole(drawn.read_bytes(), picture, overwrite)
    return pictures


def _draw(
    visualizer: Any, scope: str, pixels: np.ndarray, sample: Any, out: str, threshold: float
) -> None:
    if scope == "mmpretrain":
        # Small images are enlarged, so that there is room for the name of the class.
        classes = visualizer.dataset_meta.get("classes")
        visualizer.visualize_cls(pixels, sample, classes, draw_gt=False, resize=224, out_file=out)
        return
    options = dict(pred_score_thr=threshold) if scope == "mmdet" else {}
    visualizer.add_datasample("", pixels, sample, draw_gt=False, out_file=out, **options)
