"""Draw class activation maps and feature maps of a model, as PNG files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.visualization import Visualizer
from torch import Tensor, nn

from mmvanilla.apis.config import load_config
from mmvanilla.apis.images import ImageReader
from mmvanilla.apis.model import TensorModel, load_model
from mmvanilla.checkpoints.writing import write_whole

_PANEL_INCHES = 3.0
# The strongest channels are shown in a square of this many channels on each side.
_SHOWN_CHANNELS = 2


@dataclass(frozen=True)
class Viewer:
    """A trained model and the reader of its images.

    Attributes:
        name: Name of the config, for titles.
        model: Trained model in eval mode.
        reader: Reader that loads images as the config's test pipeline does.
        classes: Names of the classes; empty if the checkpoint has none.
    """

    name: str
    model: nn.Module
    reader: ImageReader
    classes: Sequence[str]

    @classmethod
    def load(cls, config: str, checkpoint: str, device: str = "cpu") -> Viewer:
        """Build the model and load the checkpoint strictly.

        Args:
            config: Path of the config file.
            checkpoint: Path of a checkpoint file, or an address that mmengine's loader knows.
            device: Device that the model is moved to. Default: CPU.

        Raises:
            FileNotFoundError: One of the files does not exist.
            ValueError: The file is not a checkpoint, or the config has no test pipeline.
            RuntimeError: The weights do not fit.
        """
        cfg = load_config(config)
        model, meta = load_model(cfg, checkpoint, device)
        classes = (meta.get("dataset_meta") or {}).get("classes") or ()
        return cls(Path(config).stem, model, ImageReader(model, cfg), classes)


def class_activation(
    viewer: Viewer, path: str | Path, layer: str | None = None, category: int | None = None
) -> tuple[np.ndarray, str]:
    """Draw the Grad-CAM of a classifier's decision over the image, with the library grad-cam.

    Args:
        viewer: Viewer of a classifier.
        path: Path of the image file.
        layer: Name of the module whose output is used. None: the last stage or block of the
            backbone.
        category: Index of the class to explain. None: the predicted class.

    Returns:
        The picture, (H, W, 3) uint8, and the prediction in words.

    Raises:
        ImportError: grad-cam is not installed.
        ValueError: The model is not a classifier, or has no such layer or class.
    """
    try:
        from pytorch_grad_cam import GradCAM  # type: ignore[import-untyped]
        from pytorch_grad_cam.utils.image import (  # type: ignore[import-untyped]
            show_cam_on_image,
        )
        from pytorch_grad_cam.utils.model_targets import (  # type: ignore[import-untyped]
            ClassifierOutputTarget,
        )
    except ImportError as error:
        raise ImportError("grad-cam is not installed; run `pip install grad-cam==1.4.8`") from error
    if not hasattr(viewer.model, "head") or not hasattr(viewer.model, "backbone"):
        raise ValueError(
            f"the model of {viewer.name} is not a classifier, so it has no class to explain; use "
            "`features`, which shows the backbone's outputs"
        )
    inputs, pixels = viewer.reader.read(path)
    target_layer = _target_layer(viewer.model, layer)
    model = TensorModel(viewer.model, "logits").eval()
    with torch.no_grad():
        scores = model(inputs).softmax(dim=1)[0]
    predicted = int(scores.argmax())
    if category is not None and not 0 <= category < len(scores):
        raise ValueError(f"unknown class {category}; choose from 0 to {len(scores) - 1}")
    explained = predicted if category is None else category
    with GradCAM(model=model, target_layers=[target_layer]) as cam:
        heat = cam(input_tensor=inputs, targets=[ClassifierOutputTarget(explained)])[0]
    picture = show_cam_on_image(pixels.astype(np.float32) / 255, heat, use_rgb=True)
    name = viewer.classes[explained] if explained < len(viewer.classes) else f"class {explained}"
    return picture, f"{name} {float(scores[explained]):.2f}"


def _target_layer(model: Any, name: str | None) -> nn.Module:
    if name is not None:
        modules = dict(model.named_modules())
        if name not in modules:
            raise ValueError(
                f"no module {name!r} in the model; choose one such as backbone.{_last(model)}"
            )
        return modules[name]
    return model.backbone.get_submodule(_last(model))


def _last(model: Any) -> str:
    """Name the backbone's last stage or block, which gives its last output."""
    children = [(name, child) for name, child in model.backbone.named_children()]
    name, child = [pair for pair in children if any(True for _ in pair[1].parameters())][-1]
    if isinstance(child, nn.ModuleList | nn.Sequential) and len(child):
        return f"{name}.{len(child) - 1}"
    return name


def save_activation_sheet(
    viewers: Sequence[Viewer],
    images: Sequence[Path],
    out: str | Path,
    layers: Sequence[str | None] | None = None,
    category: int | None = None,
    overwrite: bool = False,
) -> None:
    """Save a sheet with a row for each image: the image, then one Grad-CAM for each model.

    Args:
        viewers: Viewers of classifiers.
        images: Paths of the image files.
        out: Path of the ``.png`` file to write.
        layers: Names of the modules to use, one for each model, as in :func:`class_activation`.
        category: Index of the class to explain. None: the predicted class.
        overwrite: Whether to replace an existing file. Default: False.

    Raises:
        FileExistsError: ``out`` exists and ``overwrite`` is False.
    """
    rows = []
    for path in images:
        row = [(viewers[0].reader.read(path)[1], path.name)]
        for index, viewer in enumerate(viewers):
            picture, words = class_activation(
                viewer, path, layers[index] if layers else None, category
            )
            row.append((picture, f"{viewer.name}\n{words}"))
        rows.append(row)
    _save_sheet(rows, out, overwrite)


def save_feature_sheet(
    viewer: Viewer, path: str | Path, out: str | Path, overwrite: bool = False
) -> None:
    """Save a sheet of a backbone's outputs: the means of all channels, and the strongest channels.

    Args:
        viewer: Viewer of a model with a backbone.
        path: Path of the image file.
        out: Path of the ``.png`` file to write.
        overwrite: Whether to replace an existing file. Default: False.

    Raises:
        FileExistsError: ``out`` exists and ``overwrite`` is False.
        ValueError: The model has no backbone.
    """
    if not isinstance(getattr(viewer.model, "backbone", None), nn.Module):
        raise ValueError(f"the model of {viewer.name} has no backbone to show; use another one")
    inputs, pixels = viewer.reader.read(path)
    with torch.no_grad():
        levels = TensorModel(viewer.model, "backbone")(inputs)
    means = [(pixels, Path(path).name)]
    channels: list[tuple[np.ndarray, str]] = [(np.full((1, 1, 3), 255, np.uint8), "")]
    for index, level in enumerate(levels):
        level = level[0].cpu()
        height, width = level.shape[-2:]
        enlarged = nn.functional.interpolate(level[None], size=pixels.shape[:2])[0]
        mean = Visualizer.draw_featmap(
            enlarged, pixels, channel_reduction="squeeze_mean", alpha=0.4
        )
        means.append((mean, f"output {index}, {height}x{width}\nmean of {len(level)} channels"))
        channels.append((_strongest_channels(level), f"output {index}, strongest channels"))
    _save_sheet([means, channels], out, overwrite)


def _strongest_channels(level: Tensor) -> np.ndarray:
    """Arrange the strongest channels of an output, (C, H, W), in a square, with NaN between."""
    order = level.abs().mean(dim=(1, 2)).argsort(descending=True)[: _SHOWN_CHANNELS**2]
    tiles = []
    for channel in level[order].numpy():
        spread = max(float(np.ptp(channel)), 1e-12)
        tile = (channel - channel.min()) / spread
        tiles.append(np.pad(tile, (0, max(1, len(tile) // 16)), constant_values=np.nan))
    tiles += [np.full_like(tiles[0], np.nan)] * (_SHOWN_CHANNELS**2 - len(tiles))
    rows = [tiles[at : at + _SHOWN_CHANNELS] for at in range(0, len(tiles), _SHOWN_CHANNELS)]
    return np.block(rows)


def _save_sheet(
    rows: Sequence[Sequence[tuple[np.ndarray, str]]], out: str | Path, overwrite: bool
) -> None:
    from matplotlib.figure import Figure

    columns = max(map(len, rows))
    size = (_PANEL_INCHES * columns, (_PANEL_INCHES + 0.4) * len(rows))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(len(rows), columns, squeeze=False)
    for panel in panels.flat:
        panel.axis("off")
    for row, drawn in zip(rows, panels, strict=True):
        for (picture, title), panel in zip(row, drawn, strict=False):
            panel.imshow(picture)
            panel.set_title(title, fontsize=9)
    write_whole(lambda file: figure.savefig(file, format="png", dpi=120), out, overwrite)
