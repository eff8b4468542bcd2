"""Turn a trained checkpoint into a fused one, as `mmvanilla fuse_backbone` does.

This works for any detector, segmenter or classifier with fusable layers. There are five steps: load
the model strictly; fuse it; write both files to a scratch folder, read them back and compare the
result with the trained model; measure both forms; move the files to their places.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from torch import nn

from mmvanilla.apis.complexity import Complexity, measure_complexity
from mmvanilla.apis.config import load_config
from mmvanilla.apis.deploy_config import deploy_config
from mmvanilla.apis.model import (
    TensorModel,
    fixed_input_size,
    input_channels,
    load_model,
)
from mmvanilla.apis.timing import time_interleaved
from mmvanilla.checkpoints.writing import (
    appearing_together,
    check_writable,
    write_checkpoint,
    write_text,
)
from mmvanilla.deploy.comparison import first_mismatch, largest_difference
from mmvanilla.models.act_lambda import get_act_lambda, set_act_lambda
from mmvanilla.models.fusion import FusableLayer, count_fusable, fuse_model
from mmvanilla.utils.numerics import largest
from mmvanilla.version import __version__

COMPARED_SIZES = ((64, 64), (96, 160), (131, 97))  # the last: odd, no multiple of 32
DEFAULT_TOLERANCE = 1e-4
_LATENCY_ROUNDS = 9
_KEPT_META = ("dataset_meta", "epoch", "iter")


class Measurement(NamedTuple):
    """The complexity and the latency of one form of a model.

    Attributes:
        complexity: Number of parameters of the whole model, and of MACs of one forward pass.
        latency_ms: Median time of a forward pass of one image, in milliseconds.
    """

    complexity: Complexity
    latency_ms: float


@dataclass(frozen=True)
class FuseReport:
    """The result of :func:`fuse_checkpoint`.

    Attributes:
        num_fused: Number of layers that were replaced.
        max_difference: Largest difference of any output, relative to that output's maximum.
        before: Measurement of the training form.
        after: Measurement of the deploy form.
        measured: Description of the forward pass whose MACs and latency were measured.
        checkpoint: Path of the fused checkpoint.
        config: Path of the config beside it.
    """

    num_fused: int
    max_difference: float
    before: Measurement
    after: Measurement
    measured: str
    checkpoint: Path
    config: Path

    @property
    def forms(self) -> tuple[Measurement, Measurement]:
        """The measurements before and after fusing."""
        return self.before, self.after


def fuse_checkpoint(
    config: str,
    checkpoint: str,
    out: str,
    *,
    cfg_options: Mapping[str, Any] | None = None,
    sizes: Sequence[tuple[int, int]] | None = None,
    measured_size: tuple[int, int] | None = None,
    tolerance: float = DEFAULT_TOLERANCE,
    force: bool = False,
    overwrite: bool = False,
    progress: Callable[[str], None] = lambda step: None,
) -> FuseReport:
    """Fuse a trained checkpoint, and write it with a config that builds its model.

    The checkpoint has that text, too (``meta['cfg']``), so ``DetInferencer(weights=out)`` works.

    Args:
        config: Path of the config that the model was trained with.
        checkpoint: Path of the weights of the training form.
        out: Path of the ``.pth`` file to write; the config gets the same name with ``.py``.
        cfg_options: Values by dotted key, which override entries of the config.
        sizes: Input heights and widths in pixels at which fused and unfused outputs are compared.
            None: :data:`COMPARED_SIZES`, or the only size that the model accepts.
        measured_size: Height and width in pixels at which MACs and latency are measured. None:
            the only size that the model accepts, or 224×224.
        tolerance: Largest difference allowed, relative to each output's maximum. Default: 1e-4.
        force: Whether to fuse a model whose λ is not 1, which changes its outputs. Default: False.
        overwrite: Whether to replace existing files. Default: False.
        progress: Function that is called with the name of each step.

    Raises:
        FileExistsError: An output exists and ``overwrite`` is False.
        FileNotFoundError: The config or checkpoint does not exist.
        ValueError: There is nothing to fuse, ``out`` does not end in ``.pth``, an output is an
            input, or the tolerance is not a number of at least 0.
        RuntimeError: The weights do not fit, λ is not 1, or the fused files do not give the trained
            model's outputs.
    """
    out_path = Path(out).expanduser()
    outputs = out_path, out_path.with_suffix(".py")
    if not tolerance >= 0:  # written with `not` so that NaN fails
        raise ValueError(f"tolerance must be a number of at least 0, found {tolerance}")
    if out_path.suffix != ".pth":
        raise ValueError(f"the fused checkpoint must be a .pth file, found {out}")
    inputs = (config, checkpoint)
    check_writable(outputs, overwrite, inputs)

    progress("loading")
    cfg = load_config(config, cfg_options)
    model, meta = _load(cfg, checkpoint, force)

    progress("fusing")
    candidates = _fuse(cfg, model)
    num_fused = candidates[0].num_fused
    written_meta = dict(
        mmvanilla_version=__version__,
        fused_from=Path(checkpoint).name,
        **{key: _plain_values(meta[key]) for key in _KEPT_META if key in meta},
    )
    fixed_size = fixed_input_size(model)
    sizes = sizes or ((fixed_size,) if fixed_size else COMPARED_SIZES)
    with appearing_together(outputs, overwrite, inputs) as aside:
        progress("comparing")
        written, difference = _compare(model, candidates, written_meta, aside, sizes, tolerance)

        progress("measuring")
        size = measured_size or fixed_size or (224, 224)
        before, after = _measure(model, written, size)

        progress("writing")
    measured = f"one {size[0]}x{size[1]} image, {TensorModel(model).what}"
    return FuseReport(num_fused, difference, before, after, measured, *outputs)


class _Candidate(NamedTuple):
    """A fused model and the config that should build it."""

    model: nn.Module
    num_fused: int
    cfg: Config


def _load(cfg: Config, checkpoint: str, force: bool) -> tuple[nn.Module, dict[str, Any]]:
    """Load the trained model at λ = 1, and the checkpoint's meta."""
    model, meta = load_model(cfg, checkpoint)
    act_lambda = get_act_lambda(model)
    if act_lambda not in (None, 1.0):
        if not force:
            raise RuntimeError(
                f"{checkpoint} was saved at λ = {act_lambda:g}, before the end of deep training "
                "(λ = 1): fusing would change its outputs; train to the end, or add --force"
            )
        set_act_lambda(model, 1.0)
    return model, meta


def _fuse(cfg: Config, model: nn.Module) -> list[_Candidate]:
    """Fuse the model in each way that can be written, the best one first.

    The first way is the plain network, if the bias of every pair provably moved into a norm; the
    second way is the network whose pairs are built as plain convolutions with a bias.
    """
    num_fused = count_fusable(model)
    if num_fused == 0:
        raise ValueError(
            f"nothing to fuse in the model of {cfg.filename}: it is fused already (deploy=True), "
            "or it has no layers of mmvanilla; give the config of a model in training form"
        )
    moved = fuse_model(model)
    with_pairs, plain = deploy_config(cfg), deploy_config(cfg, plain_networks=True)
    expecting_no_bias = [
        name
        for name, layer in model.named_modules(remove_duplicate=False)
        if isinstance(layer, FusableLayer) and layer.brings_no_bias
    ]
    convs = dict(moved.named_modules(remove_duplicate=False))
    candidates = []
    if plain.model != with_pairs.model and all(
        convs[name].bias is None for name in expecting_no_bias
    ):
        candidates.append(_Candidate(moved, num_fused, plain))
    kept = fuse_model(model, move_bias=False) if expecting_no_bias else moved
    return [*candidates, _Candidate(kept, num_fused, with_pairs)]


def _write(candidate: _Candidate, meta: dict[str, Any], aside: Sequence[Path]) -> None:
    """Write a candidate's checkpoint and config into the scratch folder."""
    state_dict = {key: value.contiguous() for key, value in candidate.model.state_dict().items()}
    meta = dict(meta, cfg=candidate.cfg.pretty_text)  # where the toolboxes' inferencers look
    write_checkpoint(dict(meta=meta, state_dict=state_dict), aside[0], overwrite=True)
    write_text(meta["cfg"], aside[1], overwrite=True)


def _compare(
    model: nn.Module,
    candidates: Sequence[_Candidate],
    meta: dict[str, Any],
    aside: Sequence[Path],
    sizes: Sequence[tuple[int, int]],
    tolerance: float,
) -> tuple[nn.Module, float]:
    """Write the candidates until one, read back from its files, gives the trained outputs.

    Returns:
        The model that was read back, and the largest difference of its outputs.

    Raises:
        RuntimeError: No candidate gives the trained outputs.
    """
    for candidate in candidates:
        _write(candidate, meta, aside)
        try:
            return _read_back(model, candidate.model, aside, sizes, tolerance)
        except RuntimeError as error:
            refusal = error
    raise refusal


def _read_back(
    model: nn.Module,
    fused: nn.Module,
    aside: Sequence[Path],
    sizes: Sequence[tuple[int, int]],
    tolerance: float,
) -> tuple[nn.Module, float]:
    try:
        written, _ = load_model(load_config(str(aside[1])), str(aside[0]))
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()
        raise RuntimeError(
            "the fused config and checkpoint do not fit each other, so nothing was written; the "
            "config must say with type='ConvPair' where each pair is "
            f"({' '.join(line.strip() for line in reason)[:300]})"
        ) from error
    differences = [largest_difference(model, written, size) for size in sizes]
    # Written as `not all(d <= tolerance)` so that NaN fails.
    if not all(difference <= tolerance for difference in differences):
        raise RuntimeError(
            f"the fused model's outputs differ by {largest(differences):.2g} of their maximum, "
            f"more than {tolerance:g}; nothing was written"
        )
    # Parts that do not run with images alone (some heads) are compared without running them.
    mismatch = first_mismatch(fused, written)
    if mismatch:
        raise RuntimeError(
            f"the fused config does not build the fused model: {mismatch}; nothing was written"
        )
    return written, largest(differences)


@torch.no_grad()
def _measure(
    model: nn.Module, fused: nn.Module, size: tuple[int, int]
) -> tuple[Measurement, Measurement]:
    inputs = torch.randn(1, input_channels(model), *size)
    timings = time_interleaved(
        {
            "before": lambda: TensorModel(model)(inputs),
            "after": lambda: TensorModel(fused)(inputs),
        },
        rounds=_LATENCY_ROUNDS,
        warmup=2,
    )
    before, after = (
        Measurement(measure_complexity(form, size), timings[name].median)
        for name, form in (("before", model), ("after", fused))
    )
    return before, after


def _plain_values(value: Any) -> Any:
    """Convert a value to plain types, which any safe reader of checkpoints accepts."""
    if isinstance(value, Mapping):
        return {str(key): _plain_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain_values(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
