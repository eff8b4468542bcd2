"""Turn a trained checkpoint into a fused one, as `mmvanilla fuse_backbone` does."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from torch import nn

from mmvanilla.apis.complexity import Complexity, measure_complexity
from mmvanilla.apis.config import load_config
from mmvanilla.apis.deploy_config import deploy_config
from mmvanilla.apis.model import TensorModel, fixed_input_size, input_channels, load_model
from mmvanilla.apis.timing import time_interleaved
from mmvanilla.checkpoints.writing import (
    appearing_together,
    check_writable,
    write_checkpoint,
    write_text,
)
from mmvanilla.deploy.comparison import compare_forms, first_mismatch, typical_size
from mmvanilla.engine.plain_checkpoints import plain_value
from mmvanilla.models.fusion import count_fusable, fuse_model
from mmvanilla.version import __version__

DEFAULT_TOLERANCE = 1e-4
_LATENCY_ROUNDS = 9
_MOST_BOXES = 50
_KEPT_META = ("dataset_meta", "epoch", "iter")


class Measurement(NamedTuple):
    """Parameters and MACs of one form of a model, and its median time for one image in ms."""

    complexity: Complexity
    latency_ms: float


class FuseReport(NamedTuple):
    """What :func:`fuse_checkpoint` did; ``forms`` are the training form and the deploy form.

    ``max_difference`` is relative; ``compared`` and ``measured`` say in words what was done.
    """

    num_fused: int
    max_difference: float
    compared: str
    forms: tuple[Measurement, ...]
    measured: str
    config: Path


def fuse_checkpoint(
    config: str,
    checkpoint: str,
    out: str,
    *,
    cfg_options: Mapping[str, Any] | None = None,
    sizes: Sequence[tuple[int, int]] | None = None,
    tolerance: float = DEFAULT_TOLERANCE,
    overwrite: bool = False,
) -> FuseReport:
    """Fuse a trained checkpoint, and write it with a config that builds its model.

    Both files are written aside, and read back and compared before they appear.

    Args:
        config: Path of the config that the model was trained with.
        checkpoint: Path of the weights of the training form.
        out: Path of the ``.pth`` file to write; the config gets the same name with ``.py``.
        cfg_options: Values by dotted key, which override entries of the config.
        sizes: Heights and widths in pixels to compare at; the first is measured, too. None: the
            only size that the model accepts, or a size at which the config tests it.
        tolerance: Largest difference allowed, relative to each output's maximum.
        overwrite: Whether to replace existing files.

    Raises:
        OSError: An input does not exist, or an output does and ``overwrite`` is False.
        ValueError: There is nothing to fuse, or ``out`` is no ``.pth`` file or an input.
        RuntimeError: The weights do not fit, λ is not 1, a layer cannot be fused, or the fused
            files do not give the trained model's outputs.
    """
    out_path = Path(out).expanduser()
    # The checkpoint comes last: it holds the config's text, too, so it decides.
    outputs = out_path.with_suffix(".py"), out_path
    if out_path.suffix != ".pth":
        raise ValueError(f"the fused checkpoint must be a .pth file, found {out}")
    inputs = (config, checkpoint)
    check_writable(outputs, overwrite, inputs)
    cfg = load_config(config, cfg_options)
    model, meta = load_model(_compared_config(cfg), checkpoint)
    num_fused = count_fusable(model)
    if num_fused == 0:
        raise ValueError(
            f"nothing to fuse in the model of {cfg.filename}: it is fused already (deploy=True), "
            "or it has no layers of mmvanilla; give the config of a model in training form"
        )
    fused = fuse_model(model)
    kept = {key: meta[key] for key in _KEPT_META if key in meta}
    written_meta = dict(
        cfg=deploy_config(cfg).pretty_text,  # where the toolboxes' inferencers look
        mmvanilla_version=__version__,
        fused_from=Path(checkpoint).name,
        **plain_value(kept, "meta", []),  # which any safe reader accepts
    )
    state_dict = {key: value.contiguous() for key, value in fused.state_dict().items()}
    with appearing_together(outputs, overwrite, inputs) as aside:
        write_text(written_meta["cfg"], aside[0], overwrite=True)
        write_checkpoint(dict(meta=written_meta, state_dict=state_dict), aside[1], overwrite=True)
        written = _read_back(fused, aside)
        sizes = sizes or [fixed_input_size(model) or typical_size(cfg)]
        difference, compared = compare_forms(model, written, sizes, tolerance)
        forms = _measure((model, written), sizes[0])
    height, width = sizes[0]
    measured = f"one {height}x{width} image, up to the {TensorModel(model).output}"
    return FuseReport(num_fused, difference, compared, forms, measured, outputs[0])


def _compared_config(cfg: Config) -> Config:
    """Let a detector keep boxes of all scores, since a random image gives low ones, but few."""

    def change(node: Any) -> None:
        if isinstance(node, dict):
            if "score_thr" in node:
                node["score_thr"] = 0.0
            if "max_per_img" in node:
                node["max_per_img"] = min(node["max_per_img"], _MOST_BOXES)
        for child in node.values() if isinstance(node, dict) else node:
            if isinstance(child, dict | list | tuple):
                change(child)

    cfg = copy.deepcopy(cfg)
    change(cfg.model)
    return cfg


def _read_back(fused: nn.Module, aside: Sequence[Path]) -> nn.Module:
    """Build the model of the two files that were written, and check that it is the fused one."""
    try:
        written, _ = load_model(_compared_config(load_config(str(aside[0]))), str(aside[1]))
        mismatch = first_mismatch(fused, written)
    except Exception as error:
        reason = (str(error) or type(error).__name__).replace(f"{aside[0].parent}/", "")
        mismatch = " ".join(reason.split())[:300]
    if mismatch:
        raise RuntimeError(
            f"the fused config does not build the fused model, so nothing was written: {mismatch}; "
            "where pairs are meant, it must say so with type='ConvPair'"
        )
    return written


@torch.no_grad()
def _measure(forms: Sequence[nn.Module], size: tuple[int, int]) -> tuple[Measurement, ...]:
    inputs = torch.randn(1, input_channels(forms[0]), *size)
    runs = {str(index): partial(TensorModel(form), inputs) for index, form in enumerate(forms)}
    timings = time_interleaved(runs, _LATENCY_ROUNDS).values()
    return tuple(
        Measurement(measure_complexity(form, size), timing.median)
        for form, timing in zip(forms, timings, strict=True)
    )
