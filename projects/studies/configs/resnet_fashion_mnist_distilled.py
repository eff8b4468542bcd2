# The ResNet of small/resnet_fashion_mnist.py with the teacher of the VanillaNet beside it.
_base_ = ["../../../configs/small/resnet_fashion_mnist.py"]
custom_imports = dict(imports=["mmvanilla", "mmvanilla.apis.distillation"])

model = dict(
    type="DistilledClassifier",
    teacher=dict(
        config="small/resnet_wide_fashion_mnist.py",
        checkpoint="work_dirs/resnet_wide_fashion_mnist/epoch_15.pth",
    ),
    # Temperature and weights are those that are usual for small images (Tian et al., 2020).
    temperature=4.0,
    weight=0.9,
    head=dict(loss=dict(loss_weight=0.1)),
)
