"""From a config and a checkpoint to a model, and from a model to tensors."""

from __future__ import annotations

import copy
from typing import Any

from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor, nn
from torch.nn import functional

from mmvanilla.checkpoints.safe_loading import load_address
from mmvanilla.checkpoints.weights import check_weights
from mmvanilla.models.vanillanet import VanillaNet


def load_model(cfg: Config, checkpoint: str, device: str = "cpu") -> tuple[nn.Module, dict]:
    """Build a config's model and load a checkpoint into it, leaving nothing random.

    Args:
        cfg: A config of any of the three toolboxes.
        checkpoint: A file, or an address that mmengine's loader knows.
        device: The device that the model is moved to. Default: CPU.

    Returns:
        The model in eval mode, and the checkpoint's ``meta``.

    Raises:
        FileNotFoundError: The checkpoint does not exist.
        ValueError: The file is no checkpoint, or holds NaN weights or a negative variance.
        RuntimeError: Its weights do not fit the config's model, or some are missing or left over.
    """
    # What it would fetch by init_cfg is not fetched: building alone does not initialise.
    init_default_scope(cfg.get("default_scope", "mmengine"))
    # A copy, since some modules change the lists that they are built from.
    model_cfg = copy.deepcopy(cfg.model)
    if cfg.get("data_preprocessor"):  # as the Runner does; a classifier's config has it there
        model_cfg.setdefault("data_preprocessor", copy.deepcopy(cfg.data_preprocessor))
    model = revert_sync_batchnorm(MODELS.build(model_cfg))
    loaded = load_address(checkpoint)
    weights = loaded.get("state_dict", loaded)
    check_weights(weights, checkpoint)
    model.load_state_dict(weights, strict=True)
    return model.to(device).eval(), dict(loaded.get("meta") or {})


#: What a :class:`TensorModel` can give, in words.
OUTPUTS: dict[str, str] = {
    "backbone": "features of the backbone",
    "neck": "features of the backbone and neck",
    "logits": "logits",
    "probabilities": "probabilities",
    "full_size_logits": "logits at the size of the input",
}


class TensorModel(nn.Module):
    """A model of any toolbox as a function from an image batch to tensors.

    It is what exporters, counters, comparisons and clocks run. The model itself is not changed.

    Args:
        model: A detector, segmenter, classifier or bare backbone.
        output: One of :data:`OUTPUTS`. None: logits of a classifier or segmenter, what backbone
            and neck of a detector extract (its heads need proposals and data samples), the
            features of a bare backbone.

    Raises:
        ValueError: There is no such output, or this model does not have it.
    """

    def __init__(self, model: nn.Module, output: str | None = None) -> None:
        super().__init__()
        if output is None:
            output = _natural_output(model)
        elif output not in OUTPUTS:
            raise ValueError(f"unknown output {output!r}; choose from {', '.join(OUTPUTS)}")
        elif output.endswith(("logits", "probabilities")) and not _gives_logits(model):
            raise ValueError(f"{type(model).__name__} gives no {output}: it has no head for them")
        elif output == "full_size_logits" and not hasattr(model, "decode_head"):
            raise ValueError(f"{type(model).__name__} gives no {output}: it is no segmenter")
        self.model: Any = model
        self.output = output

    @property
    def what(self) -> str:
        """What the outputs are, in words."""
        return OUTPUTS[self.output]

    def forward(self, inputs: Tensor) -> Any:
        """Run the model.

        Args:
            inputs: Normalised images, (N, C, H, W).

        Returns:
            Features as a tuple of (N, C_i, H_i, W_i); logits and probabilities of a classifier as
            (N, K), of a segmenter as (N, K, H', W').
        """
        if self.output == "backbone":
            return getattr(self.model, "backbone", self.model)(inputs)
        if self.output == "neck":
            return self.model.extract_feat(inputs)
        outputs = self.model(inputs)  # every model of OpenMMLab gives tensors unless told otherwise
        if self.output == "probabilities":
            return functional.softmax(outputs, dim=1)
        if self.output == "full_size_logits":
            return functional.interpolate(
                outputs,
                size=inputs.shape[-2:],
                mode="bilinear",
                align_corners=self.model.align_corners,
            )
        return outputs


def _natural_output(model: nn.Module) -> str:
    if _gives_logits(model):
        return "logits"
    return "neck" if getattr(model, "neck", None) is not None else "backbone"


def _gives_logits(model: nn.Module) -> bool:
    heads = (getattr(model, name, None) for name in ("head", "decode_head"))
    return any(isinstance(head, nn.Module) for head in heads)


def fixed_input_size(model: nn.Module) -> tuple[int, int] | None:
    """Find the only height and width that a model serves.

    Args:
        model: Any model.

    Returns:
        Height and width in pixels where a VanillaNet inside pools adaptively; None: any size.
    """
    for module in model.modules():
        if isinstance(module, VanillaNet) and module.fixed_input_size is not None:
            return module.fixed_input_size
    return None
