# FCOS3D of MMDetection3D with VanillaNet-13 on nuScenes: 3D boxes from one image; not run in full
# It is MMDetection3D's config for ResNet-101; the optimiser is that of the authors' detectors.
_base_ = ["mmdet3d::fcos3d/fcos3d_r101-caffe-dcn_fpn_head-gn_8xb2-1x_nus-mono3d.py"]
custom_imports = dict(imports=["mmvanilla"], allow_failed_imports=False)

model = dict(
    # VanillaNet's weights were trained with these, ResNet's of the base with others.
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True
    ),
    backbone=dict(
        _delete_=True,
        type="VanillaNet",
        arch="13",
        act_num=4,
        out_indices=(0, 1, 2, 3),
        norm_cfg=dict(type="SyncBN", eps=1e-6),
        init_cfg=dict(type="Pretrained", checkpoint="vanillanet://13-act4", prefix="backbone."),
    ),
    neck=dict(in_channels=[512, 1024, 2048, 4096]),
)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type="AdamW", lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    constructor="mmvanilla.LayerDecayOptimWrapperConstructor",
    paramwise_cfg=dict(_delete_=True, decay_rate=0.6, num_layers=6),
)
