# YOLOv8 of MMYOLO with VanillaNet-9 on COCO; not run in full
# It is MMYOLO's config for YOLOv8-s. Its neck takes three levels, from 1/8 of the input on, and
# wants each as wide at its entry as at its exit: 1x1 convolutions bring VanillaNet's to 256
# channels. The optimiser is ours.
_base_ = ["mmyolo::yolov8/yolov8_s_syncbn_fast_8xb16-500e_coco.py"]
custom_imports = dict(imports=["mmvanilla"], allow_failed_imports=False)

channels = [256, 256, 256]
neck = dict(_base_.model.neck, in_channels=channels, out_channels=channels, widen_factor=1.0)
mapper = dict(
    type="mmdet.ChannelMapper",
    in_channels=[1024, 2048, 4096],
    out_channels=256,
    kernel_size=1,
    num_outs=3,
    norm_cfg=dict(type="BN"),
    act_cfg=dict(type="SiLU", inplace=True),
)
model = dict(
    # Pixels are only divided by 255 in YOLOv8; VanillaNet's weights were trained with these.
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
    backbone=dict(
        _delete_=True,
        type="VanillaNet",
        arch="9",
        out_indices=(1, 2, 3),
        norm_cfg=dict(type="SyncBN", eps=1e-6),
        init_cfg=dict(type="Pretrained", checkpoint="vanillanet://9", prefix="backbone."),
    ),
    neck=[mapper, neck],
    bbox_head=dict(head_module=dict(in_channels=channels, widen_factor=1.0)),
)

# Inherited by `mmyolo::`, the function would be given the scope as an argument.
train_dataloader = dict(collate_fn=dict(_delete_=True, type="yolov5_collate"))

# MMYOLO's constructor and hook are made for SGD.
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type="AdamW", lr=1e-3, weight_decay=0.05),
    constructor="mmvanilla.LayerDecayOptimWrapperConstructor",
    paramwise_cfg=dict(decay_rate=0.8),
)
default_hooks = dict(param_scheduler=dict(_delete_=True, type="ParamSchedulerHook"))
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, by_epoch=False, begin=0, end=1000),
    dict(
        type="CosineAnnealingLR",
        by_epoch=True,
        convert_to_iter_based=True,
        begin=0,
        end=_base_.max_epochs,
        eta_min=1e-5,
    ),
]
