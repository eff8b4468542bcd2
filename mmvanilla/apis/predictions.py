"""Draw predictions into images, with the inferencer of each toolbox."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from torch import nn

from mmvanilla.apis.config import load_config
from mmvanilla.apis.images import check_image
from mmvanilla.apis.model import load_model
from mmvanilla.checkpoints.writing import check_writable, refuse_existing
from mmvanilla.utils.scratch import scratch_folder

_SCOPES = ("mmdet", "mmseg", "mmpretrain")


def draw_predictions(
    config: str,
    checkpoint: str,
    images: Sequence[Path],
    out_dir: str | Path,
    device: str = "cpu",
    score_threshold: float = 0.3,
    overwrite: bool = False,
) -> list[Path]:
    """Predict on images, draw the predictions into them, and write them.

    Args:
        config: Path of the config file of a detector, segmenter or classifier.
        checkpoint: Path or address of the checkpoint with its weights.
        images: Paths of the image files.
        out_dir: Folder to write to; it is created if it does not exist.
        device: Device that the model runs on. Default: CPU.
        score_threshold: Lowest score of the detections that are drawn.
        overwrite: Whether to replace existing pictures. Default: False.

    Returns:
        Paths of the pictures that were written.

    Raises:
        FileNotFoundError: The config or checkpoint does not exist.
        FileExistsError: A picture exists already and ``overwrite`` is False.
        ValueError: The config is not of one of the three toolboxes, or has no visualizer; or a file
            is not an image, or is too narrow.
        RuntimeError: The weights do not fit.
    """
    cfg = load_config(config)
    scope = cfg.get("default_scope")
    if scope not in _SCOPES:
        raise ValueError(
            f"default_scope of {config} is {scope!r}; use a config of {', '.join(_SCOPES)}"
        )
    if scope != "mmpretrain" and not cfg.get("visualizer"):
        raise ValueError(
            f"{config} has no visualizer, which draws the predictions; inherit "
            f"{scope}::_base_/default_runtime.py"
        )
    out_dir = Path(out_dir)
    pictures = [_picture(scope, image) for image in images]
    check_writable([out_dir / picture for picture in pictures], overwrite, images)
    for image in images:
        check_image(image)
    model, meta = load_model(cfg, checkpoint, device)
    with scratch_folder(out_dir.parent, "drawing") as folder:
        paths = [str(path) for path in images]
        if scope == "mmpretrain":
            _draw_classes(model, meta, cfg, paths, folder)
        else:
            options = dict(pred_score_thr=score_threshold) if scope == "mmdet" else {}
            inferencer = _inferencer(scope, model, meta, cfg, device)
            inferencer(paths, out_dir=str(folder), **options)
        drawn = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
        written = [out_dir / path for path in drawn]
        for path in written:
            refuse_existing(path, overwrite)
        for source, path in zip(drawn, written, strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(folder / source, path)
    return written


def _picture(scope: str, image: Path) -> Path:
    """Return the path of an image's picture within the output folder, as a toolbox names it."""
    return Path(f"{image.stem}.png") if scope == "mmpretrain" else Path("vis", image.name)


def _inferencer(scope: str, model: nn.Module, meta: dict, cfg: Config, device: str) -> Any:
    """Build a toolbox's inferencer for a model that was loaded already.

    By default it would load the checkpoint itself, not strictly, and unpickle anything in it.
    """
    if scope == "mmdet":
        from mmdet.apis import DetInferencer as Inferencer
    else:
        from mmseg.apis import MMSegInferencer as Inferencer

    class Loaded(Inferencer):
        def _init_model(self, cfg: Any, weights: Any, device: str = "cpu") -> nn.Module:
            model.cfg = cfg
            # The weights are loaded already; this sets the names and colours of the classes.
            self._load_weights_to_model(model, dict(state_dict=model.state_dict(), meta=meta), cfg)
            return model

    return Loaded(cfg, device=device)


def _draw_classes(model: Any, meta: dict, cfg: Config, paths: Sequence[str], folder: Path) -> None:
    from mmpretrain.apis import ImageClassificationInferencer

    model._config, model._dataset_meta = cfg, meta.get("dataset_meta") or {}
    inferencer = ImageClassificationInferencer(model, pretrained=False)
    # Small images are enlarged, so that there is room for the name of the class.
    inferencer(list(paths), show_dir=str(folder), resize=224)
