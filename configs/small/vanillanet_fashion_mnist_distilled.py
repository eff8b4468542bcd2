# The VanillaNet of vanillanet_fashion_mnist.py with a teacher.
# The teacher is trained first:
#   mmvanilla train small/resnet_wide_fashion_mnist.py
# Testing and fusing need the student's checkpoint alone.
_base_ = ["vanillanet_fashion_mnist.py"]
custom_imports = dict(
    imports=["mmvanilla", "mmvanilla.cls_head", "mmvanilla.apis.distillation"],
    allow_failed_imports=False,
)

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
