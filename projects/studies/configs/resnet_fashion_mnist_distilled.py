# The ResNet of small/resnet_fashion_mnist.py with the teacher of the VanillaNet beside it.
_base_ = ["../../../configs/small/resnet_fashion_mnist.py"]
custom_imports = dict(imports=["mmvanilla", "mmvanilla.apis.distillation"])

model = dict(
    type="DistilledClassifier",
    teacher=dict(
        config="small/resnet_wide_fashion_mnist.py",
        checkpoint="work_dirs/resnet_wide_fashion_mnist/epoch_15.pth",
    ),
    temperature=2.0,
)
