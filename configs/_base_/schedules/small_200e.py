# A classifier from scratch on small images: 200 epochs. AdamW, because VanillaNet does not learn
# from scratch with SGD (issues 13 and 18 of the authors' repository).
_base_ = ["mmpretrain::_base_/default_runtime.py", "warmup_cosine.py"]

max_epochs = 200
train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=5)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-3, weight_decay=0.05),
    paramwise_cfg=dict(flat_decay_mult=0.0),
)
param_scheduler = [
    dict(_base_.param_scheduler[0], start_factor=1e-3),
    dict(_base_.param_scheduler[1], end=max_epochs),
]
default_hooks = dict(
    checkpoint=dict(interval=5, max_keep_ckpts=2, save_best="auto"),
    channels_last=dict(type="ChannelsLastHook"),
)

# --auto-scale-lr multiplies the learning rate by sqrt(batch / 128).
runner_type = "SqrtLRRunner"
auto_scale_lr = dict(base_batch_size=128)
