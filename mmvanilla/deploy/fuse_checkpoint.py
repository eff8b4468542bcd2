"""From a trained checkpoint to a fused one: what tools/fuse_backbone.py does.

Works on any detector, segmenter or classifier with something of ours inside: it is loaded
strictly, fused, compared with itself unfused, and only then written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from mmvanilla.analysis.complexity import Complexity, measure_complexity
from mmvanilla.analysis.timing import time_interleaved
from mmvanilla.apis.config import load_config
from mmvanilla.apis.deploy_config import deploy_config
from mmvanilla.apis.model import TensorModel, fixed_input_size, load_model
from mmvanilla.checkpoints.writing import refuse_existing, write_checkpoint, write_text
from mmvanilla.deploy.comparison import largest_difference
from mmvanilla.models.act_lambda import get_act_lambda, set_act_lambda
from mmvanilla.models.fusion import fuse_model
from mmvanilla.version import __version__

# Odd sizes, oblong ones, and one that is no multiple of 32.
COMPARED_SIZES = ((64, 64), (96, 160), (131, 97))


DEFAULT_TOLERANCE = 1e-4


_LATENCY_ROUNDS = 9


class Measurement(NamedTuple):
    """One form of a model: its size, its work, and how long it takes.

    Attributes:
        complexity: Parameters of the whole model, MACs of one forward pass.
        latency_ms: Median time of a forward pass of one image, in milliseconds.
    """

    complexity: Complexity
    latency_ms: float


@dataclass(frozen=True)
class FuseReport:
    """What :func:`fuse_checkpoint` did and measured.

    Attributes:
        num_fused: Layers replaced.
        max_difference: Largest difference of any output, relative to that output's maximum.
        before: The training form.
        after: The deploy form.
        measured: What MACs and latency are of.
        checkpoint: The file written.
        config: The config beside it.
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
        """Before and after."""
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
    """Fuse a trained checkpoint; write it and a config that runs with it.

    Args:
        config: The config it was trained with.
        checkpoint: Weights of the training form.
        out: The ``.pth`` file to write; the config goes beside it as ``.py``.
        cfg_options: Merged over the config.
        sizes: Input heights and widths in pixels on which fused and unfused outputs are compared.
            None: :data:`COMPARED_SIZES`, or the one size that the model serves.
        measured_size: Height and width at which MACs and latency are measured. None: 224×224.
        tolerance: Largest difference allowed, relative to each output's maximum. Default: 1e-4.
        force: Fuse a model whose λ is not 1 as if it were; its outputs then change.
        overwrite: Replace existing files.
        progress: Called with the name of each step.

    Raises:
        FileExistsError: An output exists and ``overwrite`` is False.
        FileNotFoundError: The config or checkpoint is not there.
        ValueError: There is nothing to fuse, or ``out`` does not end in ``.pth``.
        RuntimeError: The weights do not fit, λ is not 1, or the outputs differ beyond tolerance.
    """
    out_path = Path(out)
    config_path = out_path.with_suffix(".py")
    if out_path.suffix != ".pth":
        raise ValueError(f"the fused checkpoint must be a .pth file, found {out}")
    for path in (out_path, config_path):
        refuse_existing(path, overwrite)

    progress("loading")
    cfg = load_config(config, cfg_options)
    model, meta = load_model(cfg, checkpoint)
    act_lambda = get_act_lambda(model)
    if act_lambda not in (None, 1.0):
        if not force:
            raise RuntimeError(
                f"{checkpoint} was saved at λ = {act_lambda:g}, before the end of deep training "
                "(λ = 1): fused it would compute something else; train to the end, or add --force"
            )
        set_act_lambda(model, 1.0)

    progress("fusing")
    fused, num_fused = fuse_model(model)
    if num_fused == 0:
        raise ValueError(
            f"nothing to fuse in the model of {config}: it is fused already (deploy=True), or "
            "nothing of mmvanilla is in it"
        )

    progress("comparing")
    fixed_size = fixed_input_size(model)
    compared_sizes = sizes or ((fixed_size,) if fixed_size else COMPARED_SIZES)
    differences = [largest_difference(model, fused, size) for size in compared_sizes]
    # Asked for what is wanted, since a NaN is neither below nor above.
    if not all(difference <= tolerance for difference in differences):
        raise RuntimeError(
            f"the fused model's outputs differ by {max(differences):.2g} of their maximum, more "
            f"than {tolerance:g}; nothing was written"
        )

    progress("measuring")
    height, width = measured_size or fixed_size or (224, 224)
    before, after = _measure(model, fused, (height, width))
    measured = f"one {height}x{width} image, {TensorModel(model).what}"

    progress("writing")
    written_meta = dict(
        mmvanilla_version=__version__,
        fused_from=Path(checkpoint).name,
        **{key: _plain(meta[key]) for key in ("dataset_meta", "epoch", "iter") if key in meta},
    )
    state_dict = {key: value.contiguous() for key, value in fused.state_dict().items()}
    config_text = deploy_config(cfg).pretty_text
    write_checkpoint(dict(meta=written_meta, state_dict=state_dict), out_path, overwrite=overwrite)
    write_text(config_text, config_path, overwrite=overwrite)
    return FuseReport(num_fused, max(differences), before, after, measured, out_path, config_path)


@torch.no_grad()
def _measure(
    model: nn.Module, fused: nn.Module, size: tuple[int, int]
) -> tuple[Measurement, Measurement]:
    inputs = torch.randn(1, 3, *size)
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


def _plain(value: Any) -> Any:
    """Reduce to what a reader that allows tensors and plain values alone accepts."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
