# UPerNet with a narrow ResNet-18 on garments, to compare upernet_vanillanet_garments.py with.
# Images: projects.toy_data.make_garments.
_base_ = ["_base_/upernet.py"]

model = dict(
    backbone=dict(
        _delete_=True, type="ResNet", depth=18, stem_channels=20, base_channels=16, norm_eval=False
    ),
    decode_head=dict(in_channels=[16, 32, 64, 128]),
    auxiliary_head=dict(in_channels=64),
)
