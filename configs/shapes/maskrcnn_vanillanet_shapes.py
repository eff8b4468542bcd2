# Mask R-CNN with a narrow VanillaNet-7 on made-up shapes: five minutes on two CPU cores.
# Images: mmvanilla make_shapes. `mmvanilla demo` makes them, trains, tests and fuses.
_base_ = [
    "mmdet::_base_/models/mask-rcnn_r50_fpn.py",
    "mmdet::_base_/default_runtime.py",
    "../_base_/datasets/shapes_coco.py",
    "../_base_/schedules/shapes_dense.py",
]
custom_imports = dict(imports=["mmvanilla"], allow_failed_imports=False)

norm_cfg = dict(type="BN")
channels = 48
# Where the features are four pixels apart, one sample in each bin is enough.
roi_extractor = dict(out_channels=channels, roi_layer=dict(sampling_ratio=1))
model = dict(
    backbone=dict(
        _delete_=True,
        type="VanillaNet",
        arch="7",
        width_mult=0.125,
        out_indices=(0, 1, 2, 3),
        act_num=1,  # 3×3 pixels instead of 7×7: faster
    ),
    # Trained from scratch, the heads need norms too.
    neck=dict(
        in_channels=[64, 128, 256, 512], out_channels=channels, num_outs=4, norm_cfg=norm_cfg
    ),
    rpn_head=dict(
        in_channels=channels,
        feat_channels=channels,
        # The shapes are nearly as wide as high, and 14 to 58 pixels wide where nothing hides them.
        anchor_generator=dict(scales=[3.5, 5], ratios=[1.0], strides=[4, 8, 16, 32]),
    ),
    roi_head=dict(
        bbox_roi_extractor=roi_extractor,
        bbox_head=dict(
            type="ConvFCBBoxHead",
            num_shared_convs=2,
            num_shared_fcs=1,
            in_channels=channels,
            conv_out_channels=channels,
            fc_out_channels=256,
            num_classes=3,
            reg_class_agnostic=True,
            norm_cfg=norm_cfg,
        ),
        mask_roi_extractor=roi_extractor,
        mask_head=dict(
            num_convs=2,
            in_channels=channels,
            conv_out_channels=channels,
            num_classes=3,
            norm_cfg=norm_cfg,
        ),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=64)),
        rpn_proposal=dict(nms_pre=100, max_per_img=50),
        # Up to five shapes in an image: six positive regions are enough.
        rcnn=dict(sampler=dict(num=16, pos_fraction=0.375)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=100, max_per_img=50)),
)

max_epochs = 8
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = [
    *_base_.param_scheduler,
    dict(
        type="CosineAnnealingLR",
        by_epoch=True,
        convert_to_iter_based=True,
        begin=0,
        end=max_epochs,
        eta_min=1e-5,
    ),
]
default_hooks = dict(
    logger=dict(interval=20),
    checkpoint=dict(interval=1, max_keep_ckpts=2),
    channels_last=dict(type="ChannelsLastHook"),  # faster on CPUs
    # Of the pictures of `test --show-dir`.
    visualization=dict(type="DetVisualizationHook", score_thr=0.7),
)
visualizer = dict(line_width=1)
# λ rises in every iteration of the first epoch.
custom_hooks = [dict(type="DeepTrainingHook", decay_epochs=1, by_epoch=False)]
randomness = dict(seed=0)
