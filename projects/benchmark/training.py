"""The forms in which `mmvanilla benchmark` runs a network's training step."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator

from torch import Tensor, nn

from mmvanilla.apis.model import TensorModel
from mmvanilla.engine.channels_last import to_channels_last
from projects.benchmark.networks import Contender
from projects.benchmark.report import TRAINING_STEP


def trained_forms(
    contenders: Iterable[Contender], channels_last: bool
) -> Iterator[tuple[Contender, str, nn.Module]]:
    """Give each network in each form whose training step is measured.

    Ours are measured fused, too, as in fine-tuning from fused weights.

    Args:
        contenders: The networks; one whose name ends in ``with_cp`` recomputes activations.
        channels_last: Whether to measure each of ours and each peer in this memory format, too.

    Yields:
        The network, the name of the form, and the model to train.
    """
    for contender in contenders:
        if contender.name.endswith("with_cp"):
            yield contender, f"{TRAINING_STEP}, with_cp", contender.model
            continue
        models = {TRAINING_STEP: contender.model}
        if contender.kind == "ours":
            models[f"{TRAINING_STEP}, fused"] = contender.fused
        for form, model in models.items():
            yield contender, form, model
            if channels_last and contender.kind != "reference":
                converted = copy.deepcopy(model)
                to_channels_last(converted)
                yield contender, f"{form}, channels_last", converted


def loss_of(model: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], Tensor]:
    """Return a function that computes the cross entropy of a classifier for these images."""
    network = TensorModel(model, "logits")

    def forward() -> Tensor:
        logits = network(images)
        # Some peers have auxiliary classifiers in training; the last one is the main one.
        logits = logits[-1] if isinstance(logits, tuple) else logits
        return nn.functional.cross_entropy(logits.float(), labels)

    return forward


def training_step(model: nn.Module, forward: Callable[[], Tensor]) -> Callable[[], object]:
    """Return a function that computes the loss and its gradients."""

    def run() -> None:
        # Zeroed in place, so that the step is measured and not the allocator.
        model.zero_grad(set_to_none=False)
        forward().backward()

    return run
