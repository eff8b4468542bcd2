"""The backbones, necks and heads of the toolboxes that take a ``conv_cfg``, and how to build them.

Which classes they are is found by inspection. A table says how to build each one small, and what it
runs on; a class that is not in it cannot be tested, which fails the test.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmvanilla.utils.dependencies import has_toolbox


class Network(NamedTuple):
    """One class of a toolbox that takes a ``conv_cfg``."""

    toolbox: str
    kind: str
    name: str
    cls: type

    def __str__(self) -> str:
        """What a test is called."""
        return f"{self.toolbox}-{self.kind}-{self.name}"


def networks() -> Iterator[Network]:
    """Every registered backbone, neck and head whose constructor, or one it hands on to, does."""
    for toolbox in filter(has_toolbox, CASES):
        importlib.import_module(f"{toolbox}.models")
        registry = importlib.import_module(f"{toolbox}.registry").MODELS
        for name, cls in sorted(registry.module_dict.items()):
            parts = cls.__module__.split(".")
            is_part = len(parts) > 2 and ("head" in parts[2] or parts[2] in ("backbones", "necks"))
            if inspect.isclass(cls) and parts[0] == toolbox and is_part and takes_conv_cfg(cls):
                yield Network(toolbox, parts[2], name, cls)


def takes_conv_cfg(cls: type) -> bool:
    """Whether the constructor has the argument, or hands what it does not know to one that has."""
    for base in cls.__mro__:
        if "__init__" in vars(base):
            parameters = inspect.signature(base.__init__).parameters
            if "conv_cfg" in parameters:
                return True
            if not any(value.kind is value.VAR_KEYWORD for value in parameters.values()):
                return False
    return False


class Case(NamedTuple):
    """How to build a network small, and what its forward takes.

    Attributes:
        args: Arguments of the constructor besides ``conv_cfg``.
        inputs: Gives the arguments of forward; tensors are float32.
        dtype: Type to compute in; a network that makes tensors of its own may know float32 alone.
    """

    args: dict[str, Any]
    inputs: Callable[[], tuple[Any, ...]]
    dtype: torch.dtype = torch.float64


def _tensor(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def image(size: int = 64, channels: int = 3) -> Callable[[], tuple[Any, ...]]:
    """One image."""
    return lambda: (_tensor(1, channels, size, size),)


def levels(
    *channels: int, size: int = 16, container: type = tuple
) -> Callable[[], tuple[Any, ...]]:
    """Features of several levels, each half as large as the one before."""
    shapes = [(1, count, max(size >> i, 1), max(size >> i, 1)) for i, count in enumerate(channels)]
    return lambda: (container(_tensor(*shape) for shape in shapes),)


def rois(channels: int = 16, size: int = 7, more: int = 0) -> Callable[[], tuple[Any, ...]]:
    """Features of two regions, given several times if the head has several inputs."""
    return lambda: tuple(_tensor(2, channels, size, size) for _ in range(1 + more))


def _sparse_image() -> tuple[Any, ...]:
    from mmpretrain.models.utils.sparse_modules import SparseHelper

    SparseHelper._cur_active = torch.ones(1, 1, 2, 2, dtype=torch.bool)
    return image()()


_FIVE = levels(*[32] * 5, size=48)
_DENSE = dict(num_classes=2, in_channels=32, feat_channels=32, stacked_convs=1)
_ROI = dict(in_channels=16, conv_out_channels=16, num_classes=2)
_HRNET = {
    "stage1": dict(
        num_modules=1, num_branches=1, block="BOTTLENECK", num_blocks=(1,), num_channels=(8,)
    ),
    **{
        f"stage{n}": dict(
            num_modules=1,
            num_branches=n,
            block="BASIC",
            num_blocks=(1,) * n,
            num_channels=tuple(8 * 2**i for i in range(n)),
        )
        for n in (2, 3, 4)
    },
}
_REG = dict(w0=8, wa=8.0, wm=2.0, group_w=8, depth=6, bot_mul=1.0)
_SSD = dict(
    num_classes=2,
    in_channels=(16,) * 6,
    stacked_convs=1,
    feat_channels=16,
    anchor_generator=dict(
        type="SSDAnchorGenerator",
        scale_major=False,
        input_size=300,
        basesize_ratio_range=(0.15, 0.9),
        strides=[8, 16, 32, 64, 100, 300],
        ratios=[[2], [2, 3], [2, 3], [2, 3], [2], [2]],
    ),
)
_RES = dict(depth=18, base_channels=8, stem_channels=8)
_RES50 = dict(depth=50, base_channels=8, stem_channels=8)


_ONE_ANCHOR = dict(
    type="AnchorGenerator",
    octave_base_scale=1,
    scales_per_octave=1,
    ratios=[1.0],
    strides=[8, 16, 32, 64, 128],
)


def _dense(**more: Any) -> Case:
    return Case({**_DENSE, **more}, _FIVE)


def _seg(*channels: int, size: int = 16, **more: Any) -> Case:
    """A decode head over one level, or over several that are resized or listed."""
    several = len(channels) > 1
    args: dict[str, Any] = dict(
        in_channels=list(channels) if several else channels[0],
        in_index=list(range(len(channels))) if several else 0,
        channels=16,
        num_classes=2,
    )
    if several:
        args["input_transform"] = "multiple_select"
    args.update(more)
    if args.get("input_transform") is ...:  # the class itself says it
        del args["input_transform"]
    return Case(args, levels(*channels, size=size, container=list))


CASES: dict[str, dict[str, Case]] = dict(
    mmdet=dict(
        ATSSHead=_dense(),
        ATSSVLFusionHead=Case(dict(num_classes=2, in_channels=32), _FIVE),
        AnchorFreeHead=_dense(),
        AutoAssignHead=_dense(),
        BFP=Case(dict(in_channels=16, num_levels=3, refine_type="conv"), levels(16, 16, 16)),
        BoxInstBboxHead=_dense(),
        CLRFPN=Case(dict(in_channels=[8, 16, 32], out_channels=16, num_outs=3), levels(8, 16, 32)),
        CSPDarknet=Case(dict(deepen_factor=0.33, widen_factor=0.125), image()),
        CSPNeXt=Case(dict(deepen_factor=0.33, widen_factor=0.125), image()),
        CSPNeXtPAFPN=Case(
            dict(in_channels=[8, 16, 32], out_channels=16, num_csp_blocks=1), levels(8, 16, 32)
        ),
        CenterNetUpdateHead=_dense(),
        ChannelMapper=Case(dict(in_channels=[8, 16], out_channels=16, num_outs=3), levels(8, 16)),
        CoarseMaskHead=Case(
            dict(_ROI, num_convs=1, fc_out_channels=16, roi_feat_size=14), rois(size=14)
        ),
        CondInstBboxHead=_dense(num_params=169),
        ConvFCBBoxHead=Case(
            dict(_ROI, num_shared_convs=1, num_cls_convs=1, num_reg_convs=1), rois()
        ),
        DDODHead=_dense(),
        Darknet=Case(dict(depth=53), image(32)),
        DetectoRS_ResNeXt=Case(dict(_RES50, groups=4, base_width=4), image()),
        DetectoRS_ResNet=Case(_RES50, image()),
        DoubleConvFCBBoxHead=Case(
            dict(
                num_convs=1,
                num_fcs=1,
                conv_out_channels=32,
                fc_out_channels=16,
                in_channels=16,
                num_classes=2,
                with_avg_pool=True,
                roi_feat_size=7,
            ),
            rois(more=1),
        ),
        DynamicMaskHead=Case(
            dict(
                in_channels=16,
                num_convs=1,
                conv_out_channels=16,
                num_classes=2,
                dynamic_conv_cfg=dict(
                    type="DynamicConv",
                    in_channels=16,
                    feat_channels=8,
                    out_channels=16,
                    input_feat_shape=14,
                    with_proj=False,
                ),
            ),
            lambda: (_tensor(2, 16, 14, 14), _tensor(2, 16)),
        ),
        EfficientNet=Case(dict(arch="b0"), image(32)),
        FCNMaskHead=Case(dict(_ROI, num_convs=2), rois()),
        FCOSHead=_dense(),
        FPN=Case(
            dict(in_channels=[8, 16, 32], out_channels=16, num_outs=5, add_extra_convs=True),
            levels(8, 16, 32),
        ),
        FPN_DropBlock=Case(
            dict(in_channels=[8, 16, 32], out_channels=16, num_outs=3), levels(8, 16, 32)
        ),
        FSAFHead=_dense(anchor_generator=_ONE_ANCHOR),
        FoveaHead=_dense(),
        FreeAnchorRetinaHead=_dense(),
        FusedSemanticHead=Case(
            dict(
                num_ins=3,
                fusion_level=1,
                num_convs=1,
                in_channels=16,
                conv_out_channels=16,
                num_classes=2,
            ),
            levels(16, 16, 16),
        ),
        GARetinaHead=_dense(),
        GFLHead=_dense(anchor_generator=_ONE_ANCHOR),
        GlobalContextHead=Case(
            dict(num_convs=1, in_channels=16, conv_out_channels=16, num_classes=2), levels(16)
        ),
        GridHead=Case(
            dict(num_convs=1, in_channels=16, conv_kernel_size=3, point_feat_channels=4),
            rois(size=14),
        ),
        HRFPN=Case(dict(in_channels=[8, 16, 32], out_channels=16, num_outs=3), levels(8, 16, 32)),
        HRNet=Case(dict(extra=_HRNET), image()),
        HTCMaskHead=Case(dict(_ROI, num_convs=1), rois()),
        LADHead=_dense(),
        LDHead=_dense(
            anchor_generator=_ONE_ANCHOR, loss_ld=dict(type="KnowledgeDistillationKLDivLoss")
        ),
        MaskPointHead=Case(
            dict(num_classes=2, num_fcs=2, in_channels=16, fc_channels=16),
            lambda: (_tensor(2, 16, 20), _tensor(2, 2, 20)),
        ),
        MobileNetV2=Case(dict(widen_factor=0.25), image()),
        NASFCOSHead=_dense(norm_cfg=dict(type="GN", num_groups=4)),
        NASFCOS_FPN=Case(
            dict(in_channels=[8, 16, 32, 64], out_channels=16, num_outs=5, start_level=1),
            levels(8, 16, 32, 64, size=64),
        ),
        PAAHead=_dense(),
        PAFPN=Case(dict(in_channels=[8, 16, 32], out_channels=16, num_outs=4), levels(8, 16, 32)),
        PISARetinaHead=_dense(),
        PISASSDHead=Case(_SSD, levels(*[16] * 6, size=32)),
        PanopticFPNHead=Case(
            dict(
                num_things_classes=2,
                num_stuff_classes=2,
                in_channels=16,
                inner_channels=8,
                norm_cfg=dict(type="BN"),
            ),
            levels(*[16] * 5),
        ),
        QuasiDenseEmbedHead=Case(
            dict(
                num_convs=1,
                num_fcs=1,
                in_channels=16,
                conv_out_channels=16,
                fc_out_channels=16,
                embed_channels=8,
                loss_track_aux=dict(type="MSELoss"),
            ),
            rois(),
        ),
        RFP=Case(
            dict(
                in_channels=[32, 64, 128, 256],
                out_channels=16,
                num_outs=5,
                rfp_steps=2,
                aspp_out_channels=16,
                rfp_backbone=dict(
                    type="DetectoRS_ResNet",
                    rfp_inplanes=64,
                    style="pytorch",
                    **_RES50,
                ),
            ),
            lambda: ((_tensor(1, 3, 64, 64), *levels(32, 64, 128, 256)()[0]),),
        ),
        RTMDetHead=_dense(),
        RTMDetInsHead=_dense(norm_cfg=dict(type="BN")),
        RTMDetInsSepBNHead=_dense(norm_cfg=dict(type="BN")),
        RTMDetSepBNHead=_dense(
            norm_cfg=dict(type="BN"),
            anchor_generator=dict(
                type="MlvlPointGenerator", offset=0, strides=[8, 16, 32, 64, 128]
            ),
        ),
        RegNet=Case(dict(arch=_REG), image()),
        RepPointsHead=_dense(point_feat_channels=32),
        Res2Net=Case(
            dict(depth=50, base_channels=8, stem_channels=8, scales=4, base_width=4), image()
        ),
        ResNeSt=Case(dict(_RES50, base_channels=64, stem_channels=8), image(32)),
        ResNeXt=Case(dict(_RES50, groups=4, base_width=4), image()),
        ResNet=Case(_RES, image()),
        ResNetV1d=Case(_RES50, image()),
        RetinaHead=_dense(),
        RetinaSepBNHead=Case(dict(num_ins=5, **_DENSE, norm_cfg=dict(type="BN")), _FIVE),
        RoIEmbedHead=Case(
            dict(
                num_convs=1,
                num_fcs=1,
                in_channels=16,
                conv_out_channels=16,
                fc_out_channels=16,
                num_classes=2,
            ),
            lambda: (*rois(more=1)(), [2], [2]),
        ),
        SABLRetinaHead=_dense(),
        SCNetBBoxHead=Case(dict(_ROI, num_shared_convs=1), rois()),
        SCNetMaskHead=Case(dict(_ROI, num_convs=1), rois()),
        SCNetSemanticHead=Case(
            dict(
                num_ins=3,
                fusion_level=1,
                num_convs=1,
                in_channels=16,
                conv_out_channels=16,
                num_classes=2,
            ),
            levels(16, 16, 16),
        ),
        SSDHead=Case(_SSD, levels(*[16] * 6, size=32)),
        SSDNeck=Case(
            dict(
                in_channels=(16, 32),
                out_channels=(16, 32, 16),
                level_strides=(2,),
                level_paddings=(1,),
            ),
            levels(16, 32),
        ),
        SSH=Case(
            dict(num_scales=3, in_channels=[8, 16, 32], out_channels=[16, 16, 16]),
            levels(8, 16, 32),
        ),
        Shared2FCBBoxHead=Case(dict(in_channels=16, fc_out_channels=16, num_classes=2), rois()),
        Shared4Conv1FCBBoxHead=Case(dict(_ROI, fc_out_channels=16), rois()),
        TOODHead=_dense(num_dcn=0, anchor_generator=_ONE_ANCHOR),
        TridentResNet=Case(
            dict(
                _RES50,
                num_branch=3,
                test_branch_idx=1,
                trident_dilations=(1, 2, 3),
                num_stages=3,
                strides=(1, 2, 2),
                dilations=(1, 1, 1),
                out_indices=(2,),
            ),
            image(),
        ),
        VFNetHead=_dense(),
        YOLACTHead=Case(
            dict(num_classes=2, in_channels=32, feat_channels=32, num_head_convs=1), _FIVE
        ),
        YOLOV3Head=Case(
            dict(num_classes=2, in_channels=(32, 16, 8), out_channels=(16, 8, 4)), levels(32, 16, 8)
        ),
        YOLOV3Neck=Case(
            dict(num_scales=3, in_channels=[32, 16, 8], out_channels=[16, 8, 4]), levels(8, 16, 32)
        ),
        YOLOXHead=Case(dict(_DENSE), levels(32, 32, 32)),
        YOLOXPAFPN=Case(
            dict(in_channels=[8, 16, 32], out_channels=16, num_csp_blocks=1), levels(8, 16, 32)
        ),
    ),
    mmseg=dict(
        ANNHead=_seg(16, 16, input_transform=..., project_channels=8),
        APCHead=_seg(16, pool_scales=(1, 2)),
        ASPPHead=_seg(16, dilations=(1, 2)),
        BiSeNetV1=Case(
            dict(
                backbone_cfg=dict(
                    type="ResNet",
                    in_channels=3,
                    depth=18,
                    base_channels=8,
                    stem_channels=8,
                    num_stages=4,
                    out_indices=(0, 1, 2, 3),
                ),
                context_channels=(16, 32, 64),
                spatial_channels=(8, 8, 8, 16),
                out_channels=32,
            ),
            image(),
        ),
        BiSeNetV2=Case(dict(), image()),
        CCHead=_seg(16),
        CGNet=Case(dict(num_channels=(8, 16, 32), num_blocks=(1, 1)), image()),
        DAHead=_seg(16, pam_channels=8),
        DDRHead=Case(dict(in_channels=16, channels=16, num_classes=2), image(16, 16)),
        DMHead=_seg(16),
        DNLHead=_seg(16),
        DPTHead=Case(
            dict(
                in_channels=(16,) * 4,
                in_index=(0, 1, 2, 3),
                input_transform="multiple_select",
                channels=16,
                embed_dims=16,
                post_process_channels=[8, 8, 16, 16],
                num_classes=2,
            ),
            lambda: ([[_tensor(1, 16, 8, 8), _tensor(1, 16)] for _ in range(4)],),
        ),
        OCRHead=Case(
            dict(in_channels=16, in_index=0, channels=16, num_classes=2, ocr_channels=8),
            lambda: ([_tensor(1, 16, 8, 8)], _tensor(1, 2, 8, 8)),
        ),
        PointHead=Case(
            dict(in_channels=[16], in_index=[0], channels=16, num_classes=2, num_fcs=1),
            lambda: (_tensor(2, 16, 20), _tensor(2, 2, 20)),
        ),
        SegmenterMaskTransformerHead=Case(
            dict(
                in_channels=16, channels=16, num_classes=2, num_layers=1, num_heads=2, embed_dims=16
            ),
            levels(16, container=list),
        ),
        DepthwiseSeparableASPPHead=_seg(16, dilations=(1, 2), c1_in_channels=0, c1_channels=0),
        DepthwiseSeparableFCNHead=_seg(16),
        EMAHead=_seg(16, ema_channels=8, num_bases=4, num_stages=2),
        ERFNet=Case(dict(), image()),
        EncHead=_seg(16, 16, input_transform=..., num_codes=4),
        FCNHead=_seg(16, num_convs=2, concat_input=True),
        FPN=Case(dict(in_channels=[8, 16], out_channels=16, num_outs=2), levels(8, 16)),
        FPNHead=_seg(16, 16, input_transform=..., feature_strides=(4, 8)),
        FastSCNN=Case(dict(), image(128)),
        GCHead=_seg(16),
        HRNet=Case(dict(extra=_HRNET), image()),
        ICNeck=Case(
            dict(in_channels=(8, 16, 16), out_channels=16, align_corners=False),
            lambda: ((_tensor(1, 8, 32, 32), _tensor(1, 16, 16, 16), _tensor(1, 16, 8, 8)),),
        ),
        ICNet=Case(
            dict(
                backbone_cfg=dict(
                    type="ResNetV1c",
                    in_channels=3,
                    depth=18,
                    base_channels=8,
                    stem_channels=8,
                    num_stages=4,
                    out_indices=(0, 1, 2, 3),
                ),
                layer_channels=(16, 64),
                light_branch_middle_channels=8,
                psp_out_channels=16,
                out_channels=(8, 16, 16),
            ),
            image(128),
        ),
        ISAHead=_seg(16, isa_channels=8),
        InterpConv=Case(dict(in_channels=8, out_channels=8), image(16, 8)),
        JPU=Case(dict(in_channels=(8, 16, 32), mid_channels=16, start_level=0), levels(8, 16, 32)),
        LRASPPHead=_seg(8, 16, 32, size=200, branch_channels=(4, 8)),
        LightHamHead=_seg(
            16, 16, input_transform=..., ham_channels=16, ham_kwargs=dict(MD_R=4)
        )._replace(dtype=torch.float32),
        MobileNetV2=Case(dict(widen_factor=0.25), image()),
        MobileNetV3=Case(dict(arch="small"), image()),
        NLHead=_seg(16),
        PIDHead=Case(dict(in_channels=16, channels=16, num_classes=2), image(16, 16)),
        PSAHead=_seg(16, mask_size=(16, 16)),
        PSPHead=_seg(16, pool_scales=(1, 2)),
        ResNeSt=Case(dict(depth=50, stem_channels=8), image(32)),
        ResNeXt=Case(dict(_RES50, groups=4, base_width=4), image()),
        ResNet=Case(_RES, image()),
        ResNetV1c=Case(_RES, image()),
        ResNetV1d=Case(_RES50, image()),
        SETRMLAHead=Case(
            dict(in_channels=[16, 16], in_index=[0, 1], channels=16, num_classes=2, mla_channels=8),
            lambda: ([_tensor(1, 16, 8, 8)] * 2,),
        ),
        SETRUPHead=_seg(16, num_convs=2),
        STDCHead=_seg(16, num_convs=1),
        SegformerHead=_seg(8, 16, input_transform=...),
        UNet=Case(dict(base_channels=8), image()),
        UPerHead=_seg(8, 16, 32, input_transform=..., pool_scales=(1, 2)),
    ),
    mmpretrain=dict(
        CSPDarkNet=Case(dict(depth=53), image(32)),
        CSPResNeXt=Case(dict(depth=50), image(32)),
        CSPResNet=Case(dict(depth=50), image(32)),
        EfficientNet=Case(dict(arch="b0"), image(32)),
        EfficientNetV2=Case(dict(arch="b0"), image(32)),
        HRNet=Case(dict(extra=_HRNET), image()),
        MobileNetV2=Case(dict(widen_factor=0.25), image()),
        MobileNetV3=Case(dict(arch="small"), image()),
        MobileOne=Case(dict(arch="s0"), image(32)),
        MobileViT=Case(dict(arch="xx_small"), image()),
        RegNet=Case(dict(arch=_REG), image()),
        RepLKNet=Case(
            dict(
                arch=dict(
                    large_kernel_sizes=[7, 7, 7, 5],
                    layers=[1, 1, 1, 1],
                    channels=[8, 16, 32, 64],
                    small_kernel=3,
                    dw_ratio=1,
                )
            ),
            image(),
        ),
        RepMLPNet=Case(
            dict(
                arch=dict(
                    channels=[16, 32, 64, 128], depths=[1, 1, 1, 1], sharesets_nums=[1, 4, 8, 16]
                ),
                img_size=256,
                reparam_conv_kernels=(1, 3),
            ),
            image(256),
        ),
        RepVGG=Case(dict(arch="A0"), image(32)),
        Res2Net=Case(
            dict(depth=50, base_channels=8, stem_channels=8, scales=4, base_width=4), image()
        ),
        ResNeSt=Case(dict(depth=50, stem_channels=8), image(32)),
        ResNeXt=Case(dict(_RES50, groups=4, width_per_group=4), image()),
        ResNet=Case(_RES, image()),
        ResNetV1c=Case(dict(_RES, depth=18), image()),
        ResNetV1d=Case(_RES50, image()),
        ResNet_CIFAR=Case(dict(depth=18, base_channels=8, stem_channels=8), image(32)),
        SEResNeXt=Case(dict(_RES50, groups=4, width_per_group=4), image()),
        SEResNet=Case(_RES50, image()),
        ShuffleNetV1=Case(dict(groups=2), image(32)),
        ShuffleNetV2=Case(dict(widen_factor=0.5), image(32)),
        SparseResNet=Case(_RES50, _sparse_image),
        VGG=Case(dict(depth=11, norm_cfg=dict(type="BN")), image(32)),
    ),
)


# Classes that take the argument and build no convolution from it.
IGNORED = dict(
    mmdet=("DDODHead", "NASFCOSHead", "Shared2FCBBoxHead"),
    mmseg=(
        "BiSeNetV1",
        "BiSeNetV2",
        "DDRHead",
        "DPTHead",
        "DepthwiseSeparableFCNHead",
        "ERFNet",
        "LRASPPHead",
        "PIDHead",
        "SETRMLAHead",
        "SETRUPHead",
        "SegformerHead",
        "SegmenterMaskTransformerHead",
    ),
    mmpretrain=("RepLKNet",),
)

# Classes that cannot work with pairs, and what they say: the first two run over points in one
# dimension, TOODHead multiplies the weight of its convolution by itself, and SparseResNet replaces
# every plain convolution that it finds, so that its config builds another network.
REFUSED = dict(
    mmdet=dict(MaskPointHead="to have 18 channels", TOODHead="a ConvPair has no weight"),
    mmseg=dict(PointHead="to have 18 channels"),
    mmpretrain=dict(SparseResNet="SparseConv2d"),
)

# Why a class is not run: it ignores the argument, or nothing here can run it.
# What the fork has more than the original toolboxes.
FORK_ONLY = {("mmdet", "CLRFPN")}

_SKIPS_ITS_PARENT = "does not hand it on: its constructor leaves that of AnchorFreeHead out"
NOT_RUN: dict[str, dict[str, str]] = dict(
    mmdet=dict(
        ATSSVLFusionHead="needs the transformers package",
        AnchorFreeHead="is abstract",
        GARetinaHead="needs a GPU: its masked convolution has no other implementation",
        Mask2FormerHead=_SKIPS_ITS_PARENT,
        Mask2FormerTrackHead=_SKIPS_ITS_PARENT,
        MaskFormerHead=_SKIPS_ITS_PARENT,
    ),
    mmseg=dict(
        IterativeDecodeHead="is built of other heads, each with a config of its own",
        Mask2FormerHead=_SKIPS_ITS_PARENT,
        MaskFormerHead=_SKIPS_ITS_PARENT,
        SideAdapterCLIPHead="builds no convolution from it",
    ),
    mmpretrain={},
)
