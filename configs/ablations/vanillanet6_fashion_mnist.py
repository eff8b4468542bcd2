# The paper's ablations, and other schedules of λ, on a narrow VanillaNet-6 and Fashion-MNIST.
# Each training takes minutes on one CPU core. A row is a line of options, which this lists:
#   mmvanilla run_ablations ablations/vanillanet6_fashion_mnist.py --rows
#   mmvanilla train ablations/vanillanet6_fashion_mnist.py --cfg-options model.backbone.act_num=1
_base_ = ["../_base_/schedules/fashion_mnist_ablations.py", "../_base_/ablation_rows.py"]

model = dict(
    type="ImageClassifier",
    backbone=dict(
        type="VanillaNet",
        in_channels=1,
        # 28×28 → stem 14×14 → 14×14 → 7×7 → 3×3 → 3×3.
        arch=dict(dims=(16, 32, 64, 128, 128), strides=(1, 2, 2, 1), stem_stride=2, stem_padding=1),
        out_indices=(-1,),
    ),
    head=dict(
        type="VanillaNetClsHead",
        num_classes=10,
        in_channels=128,
        loss=dict(type="LabelSmoothLoss", label_smooth_val=0.1),
    ),
)

epochs = _base_.max_epochs
decay = "custom_hooks.0.decay_epochs"
half_as_long = {
    "train_cfg.max_epochs": epochs // 2,
    "train_cfg.val_interval": epochs // 2,
    "param_scheduler.1.end": epochs // 2,
    "default_hooks.checkpoint.interval": epochs // 2,
}
twice_as_long = {key: 4 * value for key, value in half_as_long.items()}
plain = _base_.ablations["plain"]
ablations = {
    "lambda_later": {"custom_hooks.0.begin": epochs // 4},
    "lambda_slower": {decay: 3 * epochs // 4},
    "lambda_faster": {decay: epochs // 4},
    "lambda_by_iteration": {"custom_hooks.0.by_epoch": False},
    "lambda_cosine": {"custom_hooks.0.schedule": "cosine"},
    "full_half_as_long": {**half_as_long, decay: epochs // 4},
    "full_twice_as_long": {**twice_as_long, decay: epochs},
    "plain_half_as_long": {**plain, **half_as_long},
    "plain_twice_as_long": {**plain, **twice_as_long},
}
