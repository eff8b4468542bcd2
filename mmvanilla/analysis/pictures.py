"""Pictures of what a model sees: class activation maps and feature maps, as PNG files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.visualization import Visualizer
from torch import Tensor, nn

from mmvanilla.apis.images import Viewer
from mmvanilla.apis.model import ForwardTensors

_PANEL_INCHES = 3.0


# In each direction of a square of channels.
_SHOWN_CHANNELS = 2


def class_activation(
    viewer: Viewer, path: str | Path, layer: str | None = None, category: int | None = None
) -> tuple[np.ndarray, str]:
    """Grad-CAM of a classifier's decision (by the library grad-cam), over the image.

    Args:
        viewer: Of a classifier.
        path: Of the image.
        layer: Name of the module to look at. None: the last one of the backbone that keeps height
            and width.
        category: The class to explain; None: the predicted one.

    Returns:
        The picture, (H, W, 3) uint8, and the prediction in words.

    Raises:
        ImportError: grad-cam is not installed.
        ValueError: No classifier, or no such layer or class.
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
        raise ValueError(f"{viewer.name} is no classifier, so it has no class to explain")
    inputs, pixels = viewer.read(path)
    target_layer = _target_layer(viewer.model, layer)
    model = ForwardTensors(viewer.model).eval()
    with torch.no_grad():
        scores = model(inputs).softmax(dim=1)[0]
    predicted = int(scores.argmax())
    if category is not None and not 0 <= category < len(scores):
        raise ValueError(f"class {category} is out of range: there are {len(scores)}")
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
            raise ValueError(f"no module {name!r} in the model; one is backbone.{_last(model)}")
        return modules[name]
    return model.backbone.get_submodule(_last(model))


def _last(model: Any) -> str:
    """The backbone's last stage or block: what its last output comes from."""
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
) -> None:
    """A sheet with a row for each image: the image, then one Grad-CAM for each model.

    Args:
        viewers: Of classifiers.
        images: Their paths.
        out: The ``.png`` to write.
        layers: As in :func:`class_activation`, one a model.
        category: As there.
    """
    rows = []
    for path in images:
        row = [(viewers[0].read(path)[1], path.name)]
        for index, viewer in enumerate(viewers):
            picture, words = class_activation(
                viewer, path, layers[index] if layers else None, category
            )
            row.append((picture, f"{viewer.name}\n{words}"))
        rows.append(row)
    _save_sheet(rows, out)


def save_feature_sheet(viewer: Viewer, path: str | Path, out: str | Path) -> None:
    """A sheet of a backbone's levels: the mean over all channels, and the strongest channels.

    Args:
        viewer: Of any model with a backbone.
        path: Of the image.
        out: The ``.png`` to write.

    Raises:
        ValueError: The model has no backbone.
    """
    backbone = getattr(viewer.model, "backbone", None)
    if not isinstance(backbone, nn.Module):
        raise ValueError(f"{viewer.name} has no backbone")
    inputs, pixels = viewer.read(path)
    with torch.no_grad():
        levels = backbone(inputs)
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
    _save_sheet([means, channels], out)


def _strongest_channels(level: Tensor) -> np.ndarray:
    """The channels of largest mean magnitude of a (C, H, W) level in a square, NaN between them."""
    order = level.abs().mean(dim=(1, 2)).argsort(descending=True)[: _SHOWN_CHANNELS**2]
    tiles = []
    for channel in level[order].numpy():
        spread = max(float(np.ptp(channel)), 1e-12)
        tile = (channel - channel.min()) / spread
        tiles.append(np.pad(tile, (0, max(1, len(tile) // 16)), constant_values=np.nan))
    tiles += [np.full_like(tiles[0], np.nan)] * (_SHOWN_CHANNELS**2 - len(tiles))
    rows = [tiles[at : at + _SHOWN_CHANNELS] for at in range(0, len(tiles), _SHOWN_CHANNELS)]
    return np.block(rows)


def _save_sheet(rows: Sequence[Sequence[tuple[np.ndarray, str]]], out: str | Path) -> None:
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
    figure.savefig(out, dpi=120)
