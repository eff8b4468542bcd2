"""Build a model from a config and a checkpoint, and use a model as a function of tensors."""

from __future__ import annotations

import copy
import re
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional

from mmvanilla.apis.config import use_scope
from mmvanilla.checkpoints.reading import check_weights, read_checkpoint, use_safe_loaders
from mmvanilla.models.vanillanet import VanillaNet


def build_model(cfg: Config) -> nn.Module:
    """Build a config's model, with its data preprocessor; no weights are loaded or fetched.

    A teacher stays as it is built, too: MMDetection's detectors with one would load
    ``teacher_ckpt`` at once, which only their training needs. Whatever else a constructor loads is
    read without running its code.

    Args:
        cfg: Config of a model of any of the three toolboxes.

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
    """Build a config's model on torch's meta device, where tensors have shapes but no data.

    Args:
        cfg: Config of a model of any of the three toolboxes.

    Raises:
        ValueError: The model cannot be built; the message says why.
    """
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
        device: Device that the model is moved to. Default: CPU.

    Returns:
        The model in eval mode, and the checkpoint's ``meta``.

    Raises:
        FileNotFoundError: The checkpoint does not exist.
        ValueError: The model cannot be built, or the file is not a checkpoint, or holds NaN or a
            negative variance.
        RuntimeError: The weights do not fit the model, or some are missing or unexpected.
    """
    model = build_model(cfg)
    loaded = read_checkpoint(checkpoint)
    weights = loaded.get("state_dict", loaded)
    check_weights(weights, checkpoint)
    # As mmengine does with what a wrapped model has written.
    weights = {re.sub(r"^module\.", "", name): value for name, value in weights.items()}
    try:
        model.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise RuntimeError(
            f"{checkpoint} does not fit the model of {cfg.filename}: {error}; take the config that "
            "the checkpoint was trained with"
        ) from error
    return model.to(device).eval(), dict(loaded.get("meta") or {})


def store_config(checkpoint: dict[str, Any], cfg: Config) -> None:
    """Store the text of a config in ``meta['cfg']``, if its model takes all of the weights.

    Then ``DetInferencer(weights=FILE)`` needs no config beside the file.

    Args:
        checkpoint: Dict with ``state_dict`` and ``meta``, to which the text is added.
        cfg: Config of the model that the weights are for.

    Raises:
        RuntimeError: The weights do not fit it, or some are missing or left over.
    """
    try:
        build_model(cfg).load_state_dict(checkpoint["state_dict"], strict=True)
    except RuntimeError as error:
        raise RuntimeError(
            f"these weights do not fit the model of {cfg.filename}: {error}"
        ) from error
    checkpoint["meta"]["cfg"] = cfg.pretty_text


#: Height and width in pixels that the tables of each toolbox are for.
DEFAULT_SIZES: dict[str, tuple[int, int]] = {
    "mmdet": (800, 1280),
    "mmseg": (512, 512),
    "mmpretrain": (224, 224),
}

#: The outputs that a :class:`TensorModel` can give, in words.
OUTPUTS: dict[str, str] = {
    "backbone": "features of the backbone",
    "neck": "features of the backbone and neck",
    "logits": "logits",
    "probabilities": "probabilities",
    "full_size_logits": "logits at the size of the input",
    "head": "outputs of the head",
}


class TensorModel(nn.Module):
    """A model of any toolbox as a function from a batch of images to tensors.

    Exporting, counting, comparing and timing run models in this way. The model is not changed.

    Args:
        model: A detector, segmenter, classifier or bare backbone.
        output: Name of the output, a key of :data:`OUTPUTS`. None: the logits of a classifier or
            segmenter, the outputs of a pose estimator's head (heatmaps, for most), the features of
            a detector's backbone and neck (its heads need proposals and data samples), or the
            features of a bare backbone.

    Raises:
        ValueError: The output is unknown, or this model does not have it.
    """

    def __init__(self, model: nn.Module, output: str | None = None) -> None:
        super().__init__()
        if output is None:
            output = _natural_output(model)
        elif output not in OUTPUTS:
            raise ValueError(f"unknown output {output!r}; choose from {', '.join(OUTPUTS)}")
        elif output.endswith(("logits", "probabilities")) and not _gives_logits(model):
            raise ValueError(
                f"{type(model).__name__} has no head that gives {output}; choose backbone or neck"
            )
        elif output == "head" and not is_pose_estimator(model):
            raise ValueError(
                f"{type(model).__name__} is not a pose estimator; choose backbone or neck"
            )
        elif output == "full_size_logits" and not hasattr(model, "decode_head"):
            raise ValueError(
                f"{type(model).__name__} is not a segmenter and gives no {output}; choose logits"
            )
        self.model: Any = model
        self.output = output

    @property
    def what(self) -> str:
        """The kind of the outputs, in words."""
        return OUTPUTS[self.output]

    def forward(self, inputs: Tensor) -> Any:
        """Run the model.

        Args:
            inputs: Normalised images, (N, C, H, W).

        Returns:
            Features as a tuple of (N, C_i, H_i, W_i); logits and probabilities of a classifier as
            (N, K), of a segmenter as (N, K, H', W'); what the head of a pose estimator gives, as
            (N, K, H', W') for heatmaps of K keypoints.
        """
        if self.output == "backbone":
            return getattr(self.model, "backbone", self.model)(inputs)
        if self.output == "neck":
            return self.model.extract_feat(inputs)
        if self.output == "head":
            return self.model(inputs, None)  # MMPose's models have no default for data samples
        outputs = self.model(inputs)  # OpenMMLab's models return tensors by default
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
    if is_pose_estimator(model):
        return "head"
    # A detector with a teacher has its backbones inside of two others.
    inside = not hasattr(model, "backbone") and hasattr(model, "extract_feat")
    return "neck" if inside or getattr(model, "neck", None) is not None else "backbone"


def _gives_logits(model: nn.Module) -> bool:
    heads = (getattr(model, name, None) for name in ("head", "decode_head"))
    return any(isinstance(head, nn.Module) for head in heads) and not is_pose_estimator(model)


def is_pose_estimator(model: nn.Module) -> bool:
    """Tell whether a model is one of MMPose's, with a head, without importing MMPose.

    Args:
        model: A model of any kind.
    """
    is_of_mmpose = any(base.__module__.startswith("mmpose.") for base in type(model).__mro__)
    return is_of_mmpose and isinstance(getattr(model, "head", None), nn.Module)


def input_channels(model: Any) -> int:
    """Return the number of channels of the images that a model takes.

    Args:
        model: A model of any toolbox, or a bare backbone.
    """
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
    """Find the only height and width that a model accepts.

    Args:
        model: A model of any kind.

    Returns:
        Height and width in pixels, if the model contains a VanillaNet that pools adaptively; None
        if the model accepts any size.
    """
    for module in model.modules():
        if isinstance(module, VanillaNet) and module.fixed_input_size is not None:
            return module.fixed_input_size
    return None
