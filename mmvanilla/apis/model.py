"""From a config and a checkpoint to a model, and from a model to tensors."""

from __future__ import annotations

import copy
from typing import Any

from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor, nn

from mmvanilla.checkpoints.safe_loading import load_address
from mmvanilla.models.vanillanet import VanillaNet


def load_model(cfg: Config, checkpoint: str, device: str = "cpu") -> tuple[nn.Module, dict]:
    """Build a config's model and load a checkpoint into it, leaving nothing random.

    Args:
        cfg: Of any of the three toolboxes.
        checkpoint: A file, or an address that mmengine's loader knows.
        device: Where the model goes. Default: CPU.

    Returns:
        The model in eval mode, and the checkpoint's ``meta``.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The file is no checkpoint.
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
    model.load_state_dict(loaded.get("state_dict", loaded), strict=True)
    return model.to(device).eval(), dict(loaded.get("meta") or {})


class ForwardTensors(nn.Module):
    """A model of any toolbox as a function from an image batch to tensors.

    Classifiers and segmenters give their logits, detectors what backbone and neck extract (their
    heads need proposals and data samples), a bare backbone its features.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model

    @property
    def what(self) -> str:
        """What the outputs are, in words."""
        if self._gives_logits:
            return "logits"
        neck = " and neck" if getattr(self.model, "neck", None) is not None else ""
        return f"features of the backbone{neck}"

    @property
    def _gives_logits(self) -> bool:
        heads = (getattr(self.model, name, None) for name in ("head", "decode_head"))
        return any(isinstance(head, nn.Module) for head in heads)

    def forward(self, inputs: Tensor) -> Any:
        """(N, C, H, W) in; a tensor or a nest of them out."""
        if self._gives_logits:
            return self.model(inputs, mode="tensor")
        if hasattr(self.model, "extract_feat"):
            return self.model.extract_feat(inputs)
        return self.model(inputs)


def fixed_input_size(model: nn.Module) -> tuple[int, int] | None:
    """The only height and width that a model serves (adaptive pooling); None: any."""
    for module in model.modules():
        if isinstance(module, VanillaNet) and module.arch.input_size is not None:
            return module.arch.input_size, module.arch.input_size
    return None
