"""Find the levels of a backbone that give a head the strides that it was built for."""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Iterator
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS

from mmvanilla.apis.model import build_on_meta, input_channels
from mmvanilla.checkpoints.reading import use_safe_loaders
from mmvanilla.checks.findings import FAULT, listed
from mmvanilla.checks.forward import run_parts
from mmvanilla.checks.sizes import LARGE
from mmvanilla.checks.strides import check_strides

_LEVELS = 4


def fitting_levels(cfg: Config) -> str | None:
    """Try the levels of a config's backbone, and return the first remedy that works.

    Args:
        cfg: Config of a model whose heads get maps of other strides than they were built for.

    Returns:
        What to write into the config; None if the backbone has no levels to choose from, or no
        choice fits.
    """
    model = cfg.model
    necks = model.get("neck")
    neck = necks[0] if isinstance(necks, list | tuple) and necks else necks
    if not isinstance(model.get("backbone"), dict) or not isinstance(neck, dict):
        return None
    for levels in _candidates():
        trial = Config(dict(cfg.to_dict(), model=copy.deepcopy(model)), filename=cfg.filename)
        with contextlib.suppress(Exception), contextlib.redirect_stdout(io.StringIO()):
            trial.model.backbone.out_indices = levels
            channels = _channels(trial.model.backbone)
            chosen = trial.model.neck[0] if isinstance(necks, list | tuple) else trial.model.neck
            given = chosen.get("in_channels")
            if not isinstance(given, list | tuple):
                channels_line: Any = channels[-1]
            else:
                is_reversed = list(given) == sorted(given, reverse=True) and len(given) > 1
                channels_line = channels[::-1] if is_reversed else channels
            chosen.in_channels = channels_line
            built = build_on_meta(trial).eval()
            run = run_parts(built, LARGE)
            strides = check_strides(built, [run])
            if run.failures or not strides or any(item.status == FAULT for item in strides):
                continue
            place = "model.neck[0]" if isinstance(necks, list | tuple) else "model.neck"
            return (
                f"set model.backbone.out_indices={levels} and "
                f"{place}.in_channels={listed(channels_line)}"
            )
    return None


def _candidates() -> Iterator[tuple[int, ...]]:
    """List runs of neighbouring levels, long ones first and fine ones last."""
    for length in range(_LEVELS, 0, -1):
        for start in range(_LEVELS - length, -1, -1):
            yield tuple(range(start, start + length))


def _channels(backbone_cfg: Any) -> list[int]:
    use_safe_loaders()
    with torch.device("meta"):
        backbone = MODELS.build(copy.deepcopy(backbone_cfg)).eval()
    images = torch.zeros(1, input_channels(backbone), 256, 320, device="meta")
    with torch.no_grad():
        return [output.shape[1] for output in backbone(images)]
