# What all detectors and segmenters on garments share, whatever their backbone: AdamW with a short
# warm-up and a cosine. Their models set the number of epochs.
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=2e-3, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
    clip_grad=dict(max_norm=5.0),
)
warm_up = dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=100)
cosine = dict(type="CosineAnnealingLR", by_epoch=True, convert_to_iter_based=True, eta_min=1e-6)
randomness = dict(seed=0)
