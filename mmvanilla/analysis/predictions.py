"""Predictions drawn into images, by the inferencer of each toolbox."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmvanilla.apis.config import load_config
from mmvanilla.apis.model import load_model
from mmvanilla.checkpoints.safe_loading import safe_loading

_SCOPES = ("mmdet", "mmseg", "mmpretrain")


def draw_predictions(
    config: str,
    checkpoint: str,
    images: Sequence[Path],
    out_dir: str | Path,
    device: str = "cpu",
    score_threshold: float = 0.3,
) -> list[Path]:
    """Predict on images and write each with its prediction drawn in.

    Args:
        config: Of a detector, segmenter or classifier.
        checkpoint: Its weights.
        images: Paths.
        out_dir: Where to write; made if missing.
        device: Where to run.
        score_threshold: Detections below it are not drawn.

    Returns:
        The files written.

    Raises:
        FileNotFoundError: The config or checkpoint is not there.
        ValueError: The config is of no toolbox that has an inferencer here, or has no visualizer.
        RuntimeError: The weights do not fit.
    """
    cfg = load_config(config)
    scope = cfg.get("default_scope")
    if scope not in _SCOPES:
        raise ValueError(
            f"default_scope of {config} is {scope!r}; predictions are drawn for "
            f"{', '.join(_SCOPES)}"
        )
    if scope != "mmpretrain" and not cfg.get("visualizer"):
        raise ValueError(
            f"{config} has no visualizer, which draws the predictions; inherit "
            f"{scope}::_base_/default_runtime.py"
        )
    # The inferencers load non-strictly: what does not fit must be found before.
    load_model(cfg, checkpoint)
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    before = _files(out_dir)
    paths = [str(path) for path in images]
    with safe_loading():
        _draw(scope, config, checkpoint, paths, out_dir, device, score_threshold)
    return sorted(_files(out_dir) - before)


def _draw(
    scope: str,
    config: str,
    checkpoint: str,
    paths: list[str],
    out_dir: Path,
    device: str,
    score_threshold: float,
) -> None:
    if scope == "mmdet":
        from mmdet.apis import DetInferencer

        detector = DetInferencer(config, checkpoint, device=device)
        detector(paths, out_dir=str(out_dir), pred_score_thr=score_threshold)
    elif scope == "mmseg":
        from mmseg.apis import MMSegInferencer

        segmenter = MMSegInferencer(config, checkpoint, device=device)
        segmenter(paths, out_dir=str(out_dir))
    else:
        from mmpretrain.apis import ImageClassificationInferencer

        classifier = ImageClassificationInferencer(config, pretrained=checkpoint, device=device)
        # Small images are drawn larger, or the class would not fit into them.
        classifier(paths, show_dir=str(out_dir), resize=224)


def _files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}
