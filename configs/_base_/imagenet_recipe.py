# What the authors' published ImageNet trainings share: 8 GPUs × 128 images, 300 epochs, λ from 0 to
# 1 in the first 100. Learning rate, weight decay, mixup and layer decay differ by variant and stand
# in the configs that use this one.
#
# Not exactly theirs, since MMPretrain has it another way:
# - Mixup and CutMix pair an image with a random other one of the batch, theirs with the one at the
#   mirrored place; each batch gets one of the two, with even chances, as theirs.
# - RandomErasing (fill_std) draws its pixels before normalisation, so rounded and cut to 0 … 255.
# - RandAugment runs in OpenCV, theirs in Pillow: the same 15 operations, strengths and chances.
# - The warm-up starts from a 1e-6th of the learning rate, theirs from 0. With layer decay (6 and 7)
#   every layer's learning rate ends at 1e-6, theirs at 1e-6 times the layer's scale.
# Colour jitter 0.4 is among their settings, but their pipeline leaves it out where RandAugment is
# on; so does this one.
_base_ = ["imagenet_testing.py", "schedules/warmup_cosine.py"]

bgr_mean = [103.53, 116.28, 123.675]
bgr_std = [57.375, 57.12, 58.395]
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="RandomResizedCrop", scale=224, backend="pillow", interpolation="bicubic"),
    dict(type="RandomFlip", prob=0.5, direction="horizontal"),
    # rand-m7-mstd0.5-inc1
    dict(
        type="RandAugment",
        policies="timm_increasing",
        num_policies=2,
        total_level=10,
        magnitude_level=7,
        magnitude_std=0.5,
        hparams=dict(pad_val=[round(x) for x in bgr_mean], interpolation="bicubic"),
    ),
    dict(
        type="RandomErasing",
        erase_prob=0.25,
        mode="rand",
        min_area_ratio=0.02,
        max_area_ratio=1 / 3,
        fill_color=bgr_mean,
        fill_std=bgr_std,
    ),
    dict(type="PackInputs"),
]
train_dataloader = dict(
    batch_size=128,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    collate_fn=dict(type="default_collate"),
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(
        type="ImageNet", data_root="data/imagenet", split="train", pipeline=train_pipeline
    ),
)
train_cfg = dict(by_epoch=True, max_epochs=300, val_interval=1)
optim_wrapper = dict(
    type="AmpOptimWrapper",
    loss_scale="dynamic",
    optimizer=dict(type="Lamb", lr=3.5e-3, weight_decay=0.35),
    # No weight decay on 1-d parameters: biases and norms.
    paramwise_cfg=dict(flat_decay_mult=0.0),
)
custom_hooks = [
    dict(type="DeepTrainingHook", decay_epochs=100),
    # Decay 0.99996, of the norms' statistics too.
    dict(type="EMAHook", momentum=4e-5, update_buffers=True),
]
default_hooks = dict(
    checkpoint=dict(interval=1, max_keep_ckpts=3, save_best="auto"), logger=dict(interval=100)
)

# --auto-scale-lr multiplies the learning rate by sqrt(batch / 1024), as the authors advise.
runner_type = "SqrtLRRunner"
auto_scale_lr = dict(base_batch_size=1024)
