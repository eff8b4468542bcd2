# Top-down heatmap pose estimator of MMPose with VanillaNet-9 on COCO; not run in full
# It is MMPose's config for ResNet-50 at 256x192. Its head takes the last level alone, 1/32 of the
# input, which three deconvolutions enlarge to 1/4. The learning rate and its decay over the layers
# are ours.
_base_ = ["mmpose::body_2d_keypoint/topdown_heatmap/coco/td-hm_res50_8xb64-210e_coco-256x192.py"]
custom_imports = dict(imports=["mmvanilla"], allow_failed_imports=False)

model = dict(
    backbone=dict(
        _delete_=True,
        type="VanillaNet",
        arch="9",
        out_indices=(3,),
        norm_cfg=dict(type="SyncBN", eps=1e-6),
        init_cfg=dict(type="Pretrained", checkpoint="vanillanet://9", prefix="backbone."),
    ),
    head=dict(in_channels=4096),
)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type="AdamW", lr=5e-4, weight_decay=0.05),
    # Without "mmvanilla." the name leads to a class of MMPose's, for vision transformers.
    constructor="mmvanilla.LayerDecayOptimWrapperConstructor",
    paramwise_cfg=dict(decay_rate=0.8),
)
