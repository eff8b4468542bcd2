# Linear warm-up, then a cosine, both by the iteration: 5 epochs of 300, as the authors train on
# ImageNet. Shorter trainings set their own begin, end and start factor on top.
param_scheduler = [
    dict(
        type="LinearLR",
        start_factor=1e-6,
        by_epoch=True,
        begin=0,
        end=5,
        convert_to_iter_based=True,
    ),
    dict(
        type="CosineAnnealingLR",
        eta_min=1e-6,
        by_epoch=True,
        begin=5,
        end=300,
        convert_to_iter_based=True,
    ),
]
