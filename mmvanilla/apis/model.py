"""Build a model from a config and a checkpoint, and use a model as a function of tensors."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmvanilla.apis.config import use_scope
from mmvanilla.checkpoints.reading import check_weights, read_checkpoint, use_safe_loaders
from mmvanilla.models.merging import adopt_single_form
from mmvanilla.models.vanillanet import VanillaNet


def build_model(cfg: Config) -> nn.Module:
    """Build a config's model, with its data preprocessor; no weights are loaded or fetched.

    Nor does a teacher of MMDetection's get its ``teacher_ckpt``, which only training needs.

    Raises:
        ValueError: The model cannot be built; the message says why.
    """
    # Building does not initialise the model, so init_cfg fetches nothing.
    use_scope(cfg)
    use_safe_loaders()
    # A copy, since some modules change the lists in their config.
    model_cfg = copy.deepcopy(cfg.model)
    if cfg.get("data_preprocessor"):  # as the Runner does, for classifiers
        model_cfg.setdefault("data_preprocessor", copy.deepcopy(cfg.data_preprocessor))
    model_cfg.pop("teacher_ckpt", None)
    try:
        return revert_sync_batchnorm(MODELS.build(model_cfg))
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(f"{cfg.filename}: the model cannot be built: {reason}") from error


def build_on_meta(cfg: Config) -> nn.Module:
    """Build as :func:`build_model` on torch's meta device: tensors have shapes, but no data."""
    try:
        with torch.device("meta"):
            model = build_model(cfg)
    except ValueError:
        # Some constructors read values of tensors, for stochastic depth for example.
        model = build_model(cfg)
    return model.to("meta")  # tensors that name their device are not there yet


def load_model(cfg: Config, checkpoint: str, device: str = "cpu") -> tuple[nn.Module, dict]:
    """Build a config's model and load a checkpoint into it, so that no weight stays random.

    Args:
        cfg: Config of a model of any of the three toolboxes.
        checkpoint: Path of a file, or an address that mmengine's loader knows.
        device: Device that the model is moved to.

    Returns:
        The model in eval mode, and the checkpoint's ``meta``.

    Raises:
        FileNotFoundError: The checkpoint does not exist.
        ValueError: The model cannot be built, or the file is not a checkpoint, or holds NaN or a
            negative variance.
        RuntimeError: Weights do not fit the model, are missing, or are unexpected.
    """
    model = build_model(cfg)
    loaded = read_checkpoint(checkpoint)
    weights = loaded.get("state_dict", loaded)
    check_weights(weights, checkpoint)
    # As mmengine does with what a wrapped model has written; a compiled one is wrapped, too.
    weights = {re.sub(r"^(module\.|_orig_mod\.)+", "", k): value for k, value in weights.items()}
    adopt_single_form(model, weights)  # also of networks that do not load by themselves
    try:
        model.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise RuntimeError(
            f"{checkpoint} does not fit the model of {cfg.filename}: {error}; take the config that "
            "the checkpoint was trained with"
        ) from error
    return model.to(device).eval(), dict(loaded.get("meta") or {})


def gives_logits(model: nn.Module) -> bool:
    """Tell whether a model has the head of a classifier or segmenter, and not one of MMPose's."""
    heads = (getattr(model, name, None) for name in ("head", "decode_head"))
    is_of_mmpose = any(base.__module__.startswith("mmpose.") for base in type(model).__mro__)
    return any(isinstance(head, nn.Module) for head in heads) and not is_of_mmpose


# The outputs that a TensorModel can give, and which models have them.
_OUTPUTS: dict[str, Callable[[nn.Module], bool]] = {
    "backbone": lambda model: True,
    "neck": lambda model: hasattr(model, "extract_feat"),
    "logits": gives_logits,
}


class TensorModel(nn.Module):
    """A model of any toolbox as a function from a batch of images to tensors.

    Exporting, counting, comparing and timing run models in this way. The model is not changed.

    Args:
        model: A detector, segmenter, classifier or bare backbone.
        output: ``'backbone'``, ``'neck'`` or ``'logits'``. None: the logits, or the features that
            the heads of a detector or pose estimator would get.

    Raises:
        ValueError: This model does not have the output.
    """

    def __init__(self, model: nn.Module, output: str | None = None) -> None:
        super().__init__()
        if output is None:
            output = _natural_output(model)
        given = [name for name, has in _OUTPUTS.items() if has(model)]
        if output not in given:
            raise ValueError(
                f"{type(model).__name__} gives no {output!r}; choose from {', '.join(given)}"
            )
        self.model: Any = model
        self.output = output

    def forward(self, inputs: Tensor) -> Any:
        """Run the model.

        Args:
            inputs: Normalised images, (N, C, H, W).

        Returns:
            Features as a tuple of (N, C_i, H_i, W_i); logits of a classifier as (N, K), of a
            segmenter as (N, K, H', W').
        """
        if self.output == "backbone":
            return getattr(self.model, "backbone", self.model)(inputs)
        if self.output == "neck":
            return self.model.extract_feat(inputs)
        return self.model(inputs)  # OpenMMLab's models return tensors by default


def _natural_output(model: nn.Module) -> str:
    if gives_logits(model):
        return "logits"
    # A detector with a teacher has its backbones inside of two others.
    inside = not hasattr(model, "backbone") and hasattr(model, "extract_feat")
    return "neck" if inside or getattr(model, "neck", None) is not None else "backbone"


def input_channels(model: Any) -> int:
    """Return the number of channels of the images that a model, or a bare backbone, takes."""
    mean = getattr(getattr(model, "data_preprocessor", None), "mean", None)
    if isinstance(mean, Tensor) and mean.numel() > 1:
        return mean.numel()
    backbone = getattr(model, "backbone", model)
    first = next((m for m in backbone.modules() if isinstance(m, nn.Conv2d)), None)
    # Of other networks the first convolution may take something else than the image.
    if first is not None and (isinstance(backbone, VanillaNet) or first.in_channels == 1):
        return first.in_channels
    return 3


def fixed_input_size(model: nn.Module) -> tuple[int, int] | None:
    """Return the only height and width in pixels that a model accepts; None if it takes any.

    A VanillaNet that pools adaptively accepts one size.
    """
    sizes = (m.fixed_input_size for m in model.modules() if isinstance(m, VanillaNet))
    return next(filter(None, sizes), None)
