"""Train a classifier of MMPretrain with a teacher (plain distillation, Hinton et al., 2015).

Besides :mod:`mmvanilla.cls_head` the only module that needs MMPretrain; configs have it in
``imports=["mmvanilla", "mmvanilla.cls_head", "mmvanilla.apis.distillation"]``.
"""

from __future__ import annotations

from typing import Any

import torch
from mmengine.registry import MODELS
from mmpretrain.models import ClsHead, ImageClassifier
from torch import Tensor, nn
from torch.nn import functional

from mmvanilla.apis.config import load_config
from mmvanilla.apis.model import load_model


@MODELS.register_module()
class DistilledClassifier(ImageClassifier):
    """An ``ImageClassifier`` that learns from labels and from another classifier's predictions.

    The losses of its head stay; ``loss_teacher`` comes to them, which is weight · T² · KL(teacher ‖
    student) of both softmaxes at the temperature T. Teacher and student see the same augmented
    batch. Weigh the labels by the ``loss_weight`` of the head's loss.

    Everything else is as without a teacher, which is no part of the model: no optimiser, average,
    wrapper or checkpoint has it, and checkpoints are those of an ``ImageClassifier``. It is read
    when training begins, stays in eval mode without gradients, and goes where the images are.
    Testing and fusing do not need its files.

    Args:
        teacher: Dict of ``config``, the path or name of a config of any classifier, and
            ``checkpoint``, the path or address of its weights.
        temperature: T, above 0; larger ones make the other classes count more. Default: 2.
        weight: Weight of ``loss_teacher``, at least 0. Default: 1.
        kwargs: As for MMPretrain's ``ImageClassifier``.

    Raises:
        TypeError: ``teacher`` has other keys, or the head has another loss than ``ClsHead``: that
            of ``ArcFaceClsHead`` has a margin, that of a ``RegressionHead`` no classes.
        ValueError: Temperature or weight is out of its range; when training begins, the teacher
            cannot be built, has another number of classes, or was trained with other means,
            deviations or colour order of the images.
        FileNotFoundError, RuntimeError: When training begins, the teacher's weights are missing,
            or do not fit.
    """

    def __init__(
        self, teacher: dict[str, str], temperature: float = 2.0, weight: float = 1.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if set(teacher) != {"config", "checkpoint"}:
            raise TypeError(f"teacher is a dict of config and checkpoint, found {sorted(teacher)}")
        names = ("loss", "_get_loss", "_get_predictions")
        if any(getattr(type(self.head), name, None) is not vars(ClsHead)[name] for name in names):
            raise TypeError(
                f"{type(self.head).__name__} has a loss or predictions of its own; a teacher needs "
                "those of ClsHead, as LinearClsHead has them"
            )
        if not temperature > 0 or not weight >= 0:
            raise ValueError(
                "temperature must be above 0 and weight at least 0, found "
                f"{temperature} and {weight}"
            )
        self.teacher_files = dict(teacher)
        self.temperature, self.weight = temperature, weight
        self._teacher: tuple[nn.Module, ...] = ()  # in a tuple, it is no part of this module

    def init_weights(self) -> None:
        """Initialise the student, and read the teacher: the Runner calls this before training."""
        super().init_weights()
        self._load_teacher()

    def _load_teacher(self) -> nn.Module:
        if not self._teacher:
            cfg = load_config(self.teacher_files["config"])
            teacher: Any = load_model(cfg, self.teacher_files["checkpoint"])[0]
            for own, theirs in zip(_images(self), _images(teacher), strict=True):
                if own != theirs:
                    raise ValueError(
                        f"{cfg.filename}: this teacher takes images of another kind: {theirs} "
                        f"instead of {own}; give both the same data_preprocessor"
                    )
            self._teacher = (teacher.requires_grad_(False),)
        return self._teacher[0]

    @torch.no_grad()
    def predict_as_teacher(self, inputs: Tensor) -> Tensor:
        """Return the teacher's logits, (N, K), for normalised images, (N, C, H, W)."""
        return self._load_teacher().to(inputs)(inputs)

    def loss(self, inputs: Tensor, data_samples: list[Any]) -> dict[str, Tensor]:
        """Compute the head's losses and ``loss_teacher``.

        Args:
            inputs: Normalised images, (N, C, H, W).
            data_samples: Their labels, as for ``ImageClassifier``.
        """
        logits = self.head(self.extract_feat(inputs))
        losses = self.head._get_loss(logits, data_samples)  # what its loss() does behind forward
        expected = self.predict_as_teacher(inputs)
        if expected.shape != logits.shape:
            raise ValueError(
                f"the teacher gives logits of shape {tuple(expected.shape)}, the student "
                f"{tuple(logits.shape)}; both must know the same classes"
            )
        # In float32, also under autocast.
        own, theirs = (
            functional.log_softmax(each.float() / self.temperature, 1)
            for each in (logits, expected)
        )
        divergence = functional.kl_div(own, theirs, reduction="batchmean", log_target=True)
        losses["loss_teacher"] = self.weight * self.temperature**2 * divergence
        return losses


def _images(model: Any) -> list[Any]:
    """Return what decides how a classifier sees an image."""
    prepare = model.data_preprocessor
    values = [getattr(prepare, name, None) for name in ("mean", "std")]
    flat = [None if each is None else each.flatten().tolist() for each in values]
    return [*flat, bool(getattr(prepare, "to_rgb", False))]
