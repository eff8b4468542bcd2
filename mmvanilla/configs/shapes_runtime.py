"""What the pure-Python configs on made-up shapes share: optimiser, loops, hooks, log."""

from mmengine.dataset import DefaultSampler
from mmengine.hooks import (
    CheckpointHook,
    DistSamplerSeedHook,
    IterTimerHook,
    LoggerHook,
    ParamSchedulerHook,
)
from mmengine.optim import LinearLR, OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, TestLoop, ValLoop
from mmengine.visualization import LocalVisBackend
from torch.optim import AdamW

from mmvanilla.engine.deep_training_hook import DeepTrainingHook
from mmvanilla.engine.reseed_hook import ReseedHook

train_cfg = dict(type=EpochBasedTrainLoop, max_epochs=3, val_interval=3)
val_cfg = dict(type=ValLoop)
test_cfg = dict(type=TestLoop)
optim_wrapper = dict(
    type=OptimWrapper,
    optimizer=dict(type=AdamW, lr=1.5e-3, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [dict(type=LinearLR, start_factor=0.01, by_epoch=False, begin=0, end=50)]
default_hooks = dict(
    timer=dict(type=IterTimerHook),
    logger=dict(type=LoggerHook, interval=20),
    param_scheduler=dict(type=ParamSchedulerHook),
    checkpoint=dict(type=CheckpointHook, interval=1, max_keep_ckpts=2),
    sampler_seed=dict(type=DistSamplerSeedHook),
)
custom_hooks = [dict(type=DeepTrainingHook, decay_epochs=2), dict(type=ReseedHook)]
env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0),
    dist_cfg=dict(backend="nccl"),
)
vis_backends = [dict(type=LocalVisBackend)]
train_sampler = dict(type=DefaultSampler, shuffle=True)
test_sampler = dict(type=DefaultSampler, shuffle=False)
log_level = "INFO"
load_from = None
resume = False
randomness = dict(seed=0)
