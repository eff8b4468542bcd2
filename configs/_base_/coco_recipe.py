# How the VanillaNet authors train their COCO detectors: 12 epochs, 8 GPUs with 4 images each,
# AdamW with layer-wise learning rate decay. A detector's config sets its own learning rate and
# milestones on top.
_base_ = [
    "mmdet::_base_/schedules/schedule_1x.py",
    "mmdet::_base_/default_runtime.py",
]
custom_imports = dict(imports=["mmvanilla"], allow_failed_imports=False)

optim_wrapper = dict(
    _delete_=True,
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    constructor="LayerDecayOptimWrapperConstructor",
    # Two blocks share a depth: stem 0, block i at i // 2 + 1, everything else 7.
    paramwise_cfg=dict(decay_rate=0.6, num_layers=6),
)
auto_scale_lr = dict(enable=False, base_batch_size=32)
