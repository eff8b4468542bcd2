# Mask R-CNN on garments, with a VanillaNet of pairs, of single convolutions, or of pairs that are
# merged when λ is 1, after 2 of 8 epochs.
_base_ = ["../../toy_data/configs/maskrcnn_vanillanet_garments.py"]

ablations = dict(
    full={},
    no_deep_training={"model.backbone.deep_training": False, "custom_hooks": []},
    merge={"custom_hooks.0.merge": True},
)
