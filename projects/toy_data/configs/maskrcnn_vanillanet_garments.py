# Mask R-CNN with a narrow VanillaNet-9 on garments. Images: projects.toy_data.make_garments.
# maskrcnn_resnet_garments.py is the same with a ResNet of as many MACs.
_base_ = ["_base_/maskrcnn.py"]

model = dict(
    backbone=dict(_delete_=True, type="VanillaNet", arch="9", width_mult=0.125, act_num=1),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
custom_hooks = [dict(type="DeepTrainingHook", decay_epochs=2, by_epoch=False)]
