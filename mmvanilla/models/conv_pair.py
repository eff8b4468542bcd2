"""Deep training: a convolution that is trained as two, with a fading activation (section 3.1)."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional

from mmvanilla.models.fusion import FusableLayer, conv_geometry
from mmvanilla.models.fusion_algebra import merge_pointwise
from mmvanilla.models.layers import DEFAULT_NORM_CFG, ConvNorm, plain_conv
from mmvanilla.models.torch_versions import eager_on_old_torch, is_compiling


class FadingReLU(nn.Module):
    """An activation that fades from ReLU to the identity: φλ(x) = (1 − λ)·ReLU(x) + λ·x.

    This is a leaky ReLU of slope λ (paper, equation 1, with λ rising from 0 to 1). At λ = 1 it
    returns its input itself: no kernel runs and no tensor is saved for backward.

    λ is saved with the weights: the state dict has it as the 0-dim tensor ``act_lambda``. A
    checkpoint without this key sets λ to 1. Inside the module it is neither a parameter nor a
    buffer, so that reading it never waits for a GPU, and no optimiser, cast, broadcast or average
    changes it. A copy has its own λ, also the copy that averages the weights: set its λ, too.
    """

    _act_lambda: Tensor
    _is_identity: bool

    def __init__(self) -> None:
        super().__init__()
        self.act_lambda = 1.0

    @property
    def act_lambda(self) -> Tensor:
        """λ, from 0 (ReLU) to 1 (identity, the default), as a 0-dim tensor in float64.

        It is a tensor, as in the state dict, since ``torch.func.functional_call`` requires one. To
        change λ, assign a number or a tensor; to write into the tensor has no effect.

        Raises:
            ValueError: The assigned value is not between 0 and 1.
        """
        return self._act_lambda.clone()

    @act_lambda.setter
    def act_lambda(self, value: float | Tensor) -> None:
        number = float(value)
        if not 0.0 <= number <= 1.0:
            raise ValueError(f"λ goes from 0 (ReLU) to 1 (identity), found {number!r}")
        with torch.inference_mode(False):  # or no gradient could pass later
            self._act_lambda = torch.tensor(number, dtype=torch.float64, device="cpu")
        self._is_identity = number == 1.0

    @eager_on_old_torch
    def forward(self, x: Tensor) -> Tensor:
        """Apply the activation to a tensor of any shape; ``x`` is overwritten if λ < 1."""
        if self._is_identity:
            return x
        if is_compiling():
            # A tensor is an input of the compiled code; a number would be compiled into it.
            return torch.where(x > 0, x, x * self._act_lambda)
        return functional.leaky_relu(x, negative_slope=self._act_lambda.item(), inplace=True)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "act_lambda"] = self.act_lambda

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        self.act_lambda = state_dict.get(prefix + "act_lambda", 1.0)

    def extra_repr(self) -> str:
        """Return what ``print(model)`` shows."""
        return f"act_lambda={self._act_lambda.item():g}"


def _of_first(name: str) -> Any:
    """Make a property of a pair that reads and sets an attribute of the first convolution."""
    return property(
        lambda pair: getattr(pair.first.conv, name),
        lambda pair, value: setattr(pair.first.conv, name, value),
        doc=f"The first convolution's {name}.",
    )


@MODELS.register_module()
class ConvPair(FusableLayer):
    """Deep training: a convolution that is trained as two, with a fading activation between them.

    conv1 (k×k) → norm → φλ → conv2 (1×1) → norm. At λ = 1 the two are linear and merge into one
    k×k convolution for inference (paper, section 3.1).

    The first arguments are those of a convolution, so that ``conv_cfg=dict(type='ConvPair')`` turns
    the convolutions of a network that takes a ``conv_cfg`` into pairs.

    Args:
        in_channels: Number of input channels, C_in.
        out_channels: Number of output channels, C_out.
        kernel_size: Kernel size of the first convolution in pixels; the second is 1×1.
        stride: Stride of the first convolution. Default: 1.
        padding: Padding of the first convolution in pixels. Default: 0.
        dilation: Dilation of the first convolution. Default: 1.
        groups: Number of groups of both convolutions. Default: 1.
        bias: Whether the second convolution has a bias (the first always has). Default: True.
        padding_mode: Padding mode of the first convolution. Default: ``'zeros'``.
        mid_channels: Number of channels between the two convolutions. None: ``out_channels``.
        norm_cfg: Config of the norm between the two. Default: BN; eps is 1e-6 if it is not given.
        last_norm: Whether a norm of the same kind also follows the second convolution. None: only
            if ``bias`` is True, since a network that asks for no bias brings its own norm.
        zero_init: Whether the second convolution starts at zero, so that the pair gives zeros (with
            a last norm: its bias) and still learns. mmengine's functions that initialise one layer,
            such as ``constant_init(layer, 0)``, do not reach a pair. Default: False.
        init_cfg: Config of the initialisation, as for every mmengine module.
        deploy: Whether to build the plain ``nn.Conv2d`` that fusing this pair gives, with a bias,
            instead of the pair: ``ConvPair(…, deploy=True)`` is an ``nn.Conv2d``. Default: False.

    Attributes:
        stride, padding, dilation, padding_mode, kernel_size, groups, in_channels, transposed,
            output_padding: Those of the first convolution. They can be set as those of an
            ``nn.Conv2d`` can (MMSegmentation's MobileNetV3 does so).
        out_channels: That of the second convolution.

    Raises:
        AttributeError: ``weight`` or ``bias`` is read or set; a pair has two of each.
    """

    stride = _of_first("stride")
    padding = _of_first("padding")
    dilation = _of_first("dilation")
    padding_mode = _of_first("padding_mode")
    kernel_size = _of_first("kernel_size")
    groups = _of_first("groups")
    in_channels = _of_first("in_channels")
    transposed = _of_first("transposed")
    output_padding = _of_first("output_padding")

    def __new__(cls, *args: Any, deploy: bool = False, **kwargs: Any) -> Any:
        """Build a pair or, with ``deploy``, the plain convolution."""
        if not deploy:
            return super().__new__(cls)
        # A subclass may choose the geometry itself, so build one on the meta device and ask it.
        with torch.device("meta"):
            pair = super().__new__(cls)
            pair.__init__(*args, **kwargs)
        return plain_conv(pair.in_channels, pair.out_channels, **conv_geometry(pair.geometry))

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        mid_channels: int | None = None,
        norm_cfg: dict[str, Any] | None = DEFAULT_NORM_CFG,
        last_norm: bool | None = None,
        zero_init: bool = False,
        init_cfg: Any = None,
        deploy: bool = False,
    ) -> None:
        assert not deploy, "__new__ has built a plain convolution"
        super().__init__(init_cfg)
        mid_channels = out_channels if mid_channels is None else mid_channels
        last_norm = bias if last_norm is None else last_norm
        self.first = ConvNorm(
            in_channels,
            mid_channels,
            kernel_size,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            padding_mode=padding_mode,
            norm_cfg=norm_cfg,
        )
        self.act = FadingReLU()
        self.second = ConvNorm(
            mid_channels,
            out_channels,
            1,
            groups=groups,
            bias=bias,
            norm_cfg=norm_cfg if last_norm else None,
        )
        self._scale_as_kaiming()
        if zero_init:
            nn.init.zeros_(self.second.conv.weight)

    def _scale_as_kaiming(self) -> None:
        """Give both convolutions the variance that mmcv's ``ConvModule`` gives its convolution.

        ``ConvModule`` does not initialise a layer that has ``init_weights``, as every mmengine
        module has. No new random numbers are drawn: those of PyTorch are scaled.
        """
        for conv in (self.first.conv, self.second.conv):
            fan_in, fan_out = conv.weight[0].numel(), len(conv.weight) * conv.weight[0, 0].numel()
            with torch.no_grad():
                # From a variance of 1 / (3 fan_in) to one of 2 / fan_out.
                conv.weight.mul_((6 * fan_in / fan_out) ** 0.5)
                if conv.bias is not None:
                    conv.bias.zero_()

    def __getattr__(self, name: str) -> Any:
        if name in ("weight", "bias"):
            raise AttributeError(_no_one(name))
        return super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("weight", "bias"):
            raise AttributeError(_no_one(name))
        super().__setattr__(name, value)

    @property
    def out_channels(self) -> int:
        """Number of output channels, which the second convolution has."""
        return self.second.conv.out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C_in, H, W) to (N, C_out, H', W')."""
        return self.second(self.act(self.first(x)))

    @property
    def geometry(self) -> nn.Conv2d:
        """The first convolution, since the second one is pointwise."""
        return self.first.conv

    def fused_tensors(self) -> tuple[Tensor, Tensor]:
        """Merge the two convolutions into one."""
        return merge_pointwise(
            *self.first.fused_tensors(), *self.second.fused_tensors(), groups=self.groups
        )

    def check_fusable(self) -> None:
        """Refuse λ ≠ 1, too: then no single convolution equals the pair."""
        super().check_fusable()
        for act in self.modules():
            if isinstance(act, FadingReLU) and act.act_lambda != 1.0:
                raise RuntimeError(
                    f"cannot fuse at λ = {act.act_lambda:g}: the activation between the two "
                    "convolutions has not faded to the identity (λ = 1); train to the end of the "
                    "decay"
                )


def _no_one(name: str) -> str:
    return (
        f"a ConvPair has no {name} of its own, since it has two convolutions: use "
        f"first.conv.{name} and second.conv.{name}, or build this layer without pairs"
    )
