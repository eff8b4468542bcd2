# A narrow AlexNet on Fashion-MNIST, whose convolutions are trained as pairs, or as single ones.
# Both have a norm behind each convolution, so that they differ in the pairs only.
_base_ = ["resnet18_fashion_mnist.py"]
custom_imports = dict(imports=["mmvanilla", "projects.studies.alexnet"])

model = dict(
    backbone=dict(
        _delete_=True,
        type="AlexNetOfPairs",
        in_channels=1,
        width_mult=1 / 8,
        norm_cfg=dict(type="BN"),
        conv_cfg=dict(type="ConvPair"),
    ),
    head=dict(in_channels=32),
)
