# The paper's ablations, and other schedules of λ, on a narrow VanillaNet-6 and Fashion-MNIST.
# Each training takes minutes on one CPU core. A row is a line of options, which this lists:
#   python -m projects.studies.compare_trainings CONFIG --rows
_base_ = ["_base_/fashion_mnist_ablations.py", "_base_/ablation_rows.py"]

model = dict(
    type="ImageClassifier",
    backbone=dict(
        type="VanillaNet",
        in_channels=1,
        # 28×28 → stem 14×14 → 14×14 → 7×7 → 3×3 → 3×3.
        arch=dict(dims=(16, 32, 64, 128, 128), strides=(1, 2, 2, 1), stem_stride=2, stem_padding=1),
        act_num=1,  # the paper's 3, 7×7 pixels, are more than the last maps have
        out_indices=(-1,),
    ),
    head=dict(
        type="VanillaNetClsHead",
        num_classes=10,
        in_channels=128,
        loss=dict(type="LabelSmoothLoss", label_smooth_val=0.1),
    ),
)

epochs, decay = _base_.epochs, _base_.decay
early = _base_.deep_rows["merge_early"]
twice_as_long = {
    "train_cfg.max_epochs": 2 * epochs,
    "train_cfg.val_interval": 2 * epochs,
    "param_scheduler.1.end": 2 * epochs,
    "default_hooks.checkpoint.interval": 2 * epochs,
}
papers = _base_.pop("ablations")
papers["n3"] = papers.pop("n1")  # which is `full` here
papers["n3"]["model.backbone.act_num"] = 3
single = papers["no_deep_training"]
ablations = {
    **papers,
    "lambda_later": {"custom_hooks.0.begin": epochs // 4},
    "lambda_slower": {decay: 3 * epochs // 4},
    "lambda_faster": {decay: epochs // 4},
    "lambda_by_iteration": {"custom_hooks.0.by_epoch": False},
    "lambda_cosine": {"custom_hooks.0.schedule": "cosine"},
    "full_twice_as_long": {**twice_as_long, decay: epochs},
    "no_deep_training_twice_as_long": {**single, **twice_as_long},
    "no_deep_training_lamb": {**single, **_base_.lamb},
    "merge_early_2_wide": {**early, "model.backbone.mid_ratio": 2},
    "merge_early_4_wide": {**early, "model.backbone.mid_ratio": 4},
    **_base_.deep_rows,
}
