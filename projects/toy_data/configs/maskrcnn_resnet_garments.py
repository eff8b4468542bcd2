# Mask R-CNN with a narrow ResNet-18 on garments, to compare maskrcnn_vanillanet_garments.py with.
# Images: projects.toy_data.make_garments.
_base_ = ["_base_/maskrcnn.py"]

model = dict(
    backbone=dict(
        _delete_=True, type="ResNet", depth=18, stem_channels=20, base_channels=16, norm_eval=False
    ),
    neck=dict(in_channels=[16, 32, 64, 128]),
)
