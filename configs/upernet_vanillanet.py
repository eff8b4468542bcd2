# UPerNet with VanillaNet-13 on ADE20K; the schedule is ours, not run in full.
# No segmentation recipe was published for VanillaNet: this is MMSegmentation's for ConvNeXt (a
# backbone of about this size) taken over as it is, with 8 GPUs of 2 images each, and the layer
# decay counted in VanillaNet's 11 blocks.
#
# Testing slides a 512x512 window. The whole image at once:
#   --cfg-options model.test_cfg.mode=whole
# Six scales, each also flipped: mmvanilla test ... --tta
# `mmseg::` is spelt out: mmengine takes it only from a distribution named mmsegmentation, and the
# maintained fork's has another name.
_base_ = [
    f"{__import__('mmseg').__path__[0]}/.mim/configs/_base_/{name}.py"
    for name in (
        "models/upernet_convnext",
        "datasets/ade20k",
        "schedules/schedule_160k",
        "default_runtime",
    )
]
custom_imports = dict(imports=["mmvanilla"], allow_failed_imports=False)

crop_size = (512, 512)
norm_cfg = dict(type="SyncBN", requires_grad=True)
data_preprocessor = dict(size=crop_size)
# The base config has the address of ConvNeXt's weights here, and a dump would repeat it.
checkpoint_file = "vanillanet://13"
model = dict(
    data_preprocessor=data_preprocessor,
    backbone=dict(
        _delete_=True,
        type="VanillaNet",
        arch="13",
        out_indices=(0, 1, 2, 3),
        norm_cfg=dict(type="SyncBN", eps=1e-6),
        init_cfg=dict(type="Pretrained", checkpoint=checkpoint_file, prefix="backbone."),
    ),
    decode_head=dict(in_channels=[512, 1024, 2048, 4096], num_classes=150),
    auxiliary_head=dict(in_channels=2048, num_classes=150),
    test_cfg=dict(mode="slide", crop_size=crop_size, stride=(341, 341)),
)

train_dataloader = dict(batch_size=2)
val_dataloader = dict(batch_size=1)
test_dataloader = val_dataloader

optim_wrapper = dict(
    _delete_=True,
    type="AmpOptimWrapper",
    loss_scale="dynamic",
    optimizer=dict(type="AdamW", lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    constructor="LayerDecayOptimWrapperConstructor",
    paramwise_cfg=dict(decay_rate=0.9),
)
auto_scale_lr = dict(enable=False, base_batch_size=16)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type="PolyLR", power=1.0, eta_min=0.0, by_epoch=False, begin=1500, end=160000),
]
