# How the VanillaNet authors train their COCO detectors: 12 epochs, 8 GPUs with 4 images each,
# AdamW with layer-wise learning rate decay, SyncBN in the backbone, 18 scales. A detector's config
# sets its own learning rate and milestones on top.
_base_ = ["mmdet::_base_/schedules/schedule_1x.py", "mmdet::_base_/default_runtime.py"]
custom_imports = dict(imports=["mmvanilla"], allow_failed_imports=False)

# A config may have one base with a `model` and one with a pipeline: those are MMDetection's. So the
# detectors' configs take these two out of here by `_base_.pop`, and no dumped config repeats them.
backbone = dict(
    _delete_=True,
    type="VanillaNet",
    arch="13",
    act_num=4,
    out_indices=(0, 1, 2, 3),
    norm_cfg=dict(type="SyncBN", eps=1e-6),
    init_cfg=dict(type="Pretrained", checkpoint="vanillanet://13-act4", prefix="backbone."),
)
multi_scale_resize = dict(
    type="RandomChoiceResize",
    scales=[(1333, short_side) for short_side in range(480, 1025, 32)],
    keep_ratio=True,
)

optim_wrapper = dict(
    _delete_=True,
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    constructor="LayerDecayOptimWrapperConstructor",
    # Two blocks share a depth: stem 0, block i at i // 2 + 1, everything else 7.
    paramwise_cfg=dict(decay_rate=0.6, num_layers=6),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type="MultiStepLR", begin=0, end=12, by_epoch=True, milestones=[10, 12], gamma=0.1),
]
auto_scale_lr = dict(enable=False, base_batch_size=32)
