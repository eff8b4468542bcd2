"""VanillaNet's classification head (paper, section 3.1), for which MMPretrain must be installed.

Configs import it by ``custom_imports = dict(imports=['mmvanilla', 'mmvanilla.cls_head'])``.
"""

from __future__ import annotations

from typing import Any

from mmengine.registry import MODELS
from mmpretrain.models.heads import ClsHead
from torch import Tensor, nn

from mmvanilla.models.conv_pair import DEFAULT_NORM_CFG, ConvPair
from mmvanilla.models.strict_loading import StrictLoadingMixin
from mmvanilla.models.vanillanet import DEFAULT_INIT_CFG

_DEFAULT_LOSS = dict(type="CrossEntropyLoss", loss_weight=1.0)


@MODELS.register_module()
class VanillaNetClsHead(StrictLoadingMixin, ClsHead):
    """Global average pooling → dropout → a pair of 1×1 convolutions to the classes.

    The pair is conv (C → K) → norm → φλ → conv (K → K), without a norm at the end, and is fused
    together with those of the backbone. The classifier needs no neck.

    Weights for another number of classes cause a warning, as usual in MMPretrain, so that
    fine-tuning can start from them.

    Args:
        num_classes: Number of classes, K.
        in_channels: Number of channels of the backbone's last output, C.
        dropout: Its probability. Default: 0.
        norm_cfg: Config of the norm inside the pair. Default: BN with eps 1e-6.
        deploy: Whether to build the deploy form. Default: False.
        deep_training: Whether to train a pair, or one convolution. Default: True.
        loss, topk, cal_acc: As in MMPretrain's ClsHead.
        init_cfg: Config of the initialisation. Default: as in the backbone.

    Raises:
        ValueError: ``num_classes`` is below 1, or ``dropout`` is no probability.
    """

    requires_all_weights = False

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        dropout: float = 0.0,
        norm_cfg: dict[str, Any] = DEFAULT_NORM_CFG,
        deploy: bool = False,
        deep_training: bool = True,
        loss: dict[str, Any] | nn.Module = _DEFAULT_LOSS,
        topk: int | tuple[int, ...] = (1,),
        cal_acc: bool = False,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(loss, topk, cal_acc, DEFAULT_INIT_CFG if init_cfg is None else init_cfg)
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, found {num_classes}")
        self.num_classes, self.in_channels = num_classes, in_channels
        self.dropout = nn.Dropout(dropout)
        self.conv = (
            ConvPair(in_channels, num_classes, 1, norm_cfg=norm_cfg, last_norm=False)
            if deep_training and not deploy
            else nn.Conv2d(in_channels, num_classes, 1)
        )

    def pre_logits(self, feats: tuple[Tensor, ...]) -> Tensor:
        """Pool the backbone's last output, (N, C, H, W), to (N, C, 1, 1).

        Raises:
            ValueError: It has been pooled already.
        """
        x = feats[-1]
        if x.dim() != 4:
            raise ValueError(
                f"VanillaNetClsHead takes features of shape (N, C, H, W), which it pools, found "
                f"{tuple(x.shape)}; drop the classifier's neck"
            )
        return x.mean(dim=(2, 3), keepdim=True)

    def forward(self, feats: tuple[Tensor, ...]) -> Tensor:
        """Compute the logits, (N, K), from the backbone's outputs."""
        return self.conv(self.dropout(self.pre_logits(feats))).flatten(1)
