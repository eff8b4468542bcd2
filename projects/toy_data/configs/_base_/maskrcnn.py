# A Mask R-CNN with narrow heads, trained from scratch on garments: all but the backbone and the
# neck's in_channels. `python -m projects.toy_data.make_garments` makes the images.
_base_ = [
    "mmdet::_base_/models/mask-rcnn_r50_fpn.py",
    "mmdet::_base_/default_runtime.py",
    "coco.py",
    "schedule.py",
]
custom_imports = dict(imports=["mmvanilla"], allow_failed_imports=False)

width, num_classes = 48, 10
norm_cfg = dict(type="BN")
model = dict(
    neck=dict(out_channels=width, norm_cfg=norm_cfg, num_outs=4),
    rpn_head=dict(
        in_channels=width,
        feat_channels=width,
        # Garments are 12 to 50 pixels long; one size of anchors at each of four levels.
        anchor_generator=dict(scales=[4], strides=[4, 8, 16, 32]),
    ),
    roi_head=dict(
        # Boxes up to 56 pixels from the finest level, up to 112 from the next one.
        bbox_roi_extractor=dict(out_channels=width, finest_scale=28),
        bbox_head=dict(
            type="ConvFCBBoxHead",
            num_shared_convs=1,
            num_shared_fcs=1,
            in_channels=width,
            conv_out_channels=width,
            fc_out_channels=256,
            num_classes=num_classes,
            norm_cfg=norm_cfg,
        ),
        mask_roi_extractor=dict(out_channels=width, finest_scale=28),
        mask_head=dict(
            num_convs=1,
            in_channels=width,
            conv_out_channels=width,
            num_classes=num_classes,
            norm_cfg=norm_cfg,
        ),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=64)),
        rpn_proposal=dict(nms_pre=200, max_per_img=100),
        rcnn=dict(sampler=dict(num=32)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=200, max_per_img=100), rcnn=dict(max_per_img=20)),
)

train_dataloader = dict(batch_size=4)
max_epochs = 8
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = [_base_.pop("warm_up"), dict(_base_.pop("cosine"), begin=0, end=max_epochs)]
default_hooks = dict(
    logger=dict(interval=50),
    checkpoint=dict(interval=1, max_keep_ckpts=1),
    channels_last=dict(type="ChannelsLastHook"),  # faster on CPUs
)
