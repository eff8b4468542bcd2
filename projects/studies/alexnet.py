"""AlexNet for small images, with convolutions that a config chooses, for ablations."""

from __future__ import annotations

from typing import Any

from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn

_CHANNELS = (64, 192, 384, 256, 256)
_KERNEL_SIZES = (5, 5, 3, 3, 3)
_POOLED = (0, 1, 4)  # the layers in front of a max pooling


@MODELS.register_module()
class AlexNetOfPairs(BaseModule):
    """The five convolutions of AlexNet for images of about 28×28 pixels.

    MMPretrain's AlexNet takes 224×224 pixels and builds ``nn.Conv2d`` itself, so that it cannot be
    trained with pairs of convolutions. This one takes a ``conv_cfg``, and its first convolution has
    a kernel of 5×5 pixels and the stride 1. A pooling and a linear layer are left to neck and head.

    Args:
        in_channels: Number of channels of the images. Default: 3.
        width_mult: Factor of AlexNet's 64, 192, 384, 256 and 256 channels. Default: 1.
        conv_cfg: Config of the convolutions, as ``dict(type='ConvPair')``. None: plain ones.
        norm_cfg: Config of a norm behind each convolution. None (default): no norm, as in AlexNet.
        init_cfg: Config of the initialisation, as for every mmengine module. Default: Kaiming's
            for the convolutions.

    Examples:
        >>> AlexNetOfPairs(in_channels=1, width_mult=1 / 8, conv_cfg=dict(type="ConvPair"))
    """

    def __init__(
        self,
        in_channels: int = 3,
        width_mult: float = 1.0,
        conv_cfg: dict[str, Any] | None = None,
        norm_cfg: dict[str, Any] | None = None,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(init_cfg or dict(type="Kaiming", layer="Conv2d"))
        layers: list[nn.Module] = []
        for index, (channels, kernel_size) in enumerate(zip(_CHANNELS, _KERNEL_SIZES, strict=True)):
            out_channels = round(channels * width_mult)
            layers.append(
                ConvModule(
                    in_channels,
                    out_channels,
                    kernel_size,
                    padding=kernel_size // 2,
                    conv_cfg=conv_cfg,
                    norm_cfg=norm_cfg,
                )
            )
            if index in _POOLED:
                layers.append(nn.MaxPool2d(kernel_size=3, stride=2))
            in_channels = out_channels
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """Compute the features.

        Args:
            x: Images of shape (N, C, H, W), at least 15×15 pixels.

        Returns:
            One map of shape (N, C_5, H', W'): 28×28 pixels give 2×2.
        """
        return (self.layers(x),)
