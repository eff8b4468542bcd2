# What the ablations on Fashion-MNIST share: the first 20,000 training images, so that the last ones
# can be held out, and a schedule of minutes on one CPU core. λ rises in its first half. All that
# decides the results stands here: they stay what they are when the recipe for all images changes.
_base_ = [
    "../../../../configs/_base_/datasets/fashion_mnist.py",
    "../../../../configs/_base_/schedules/small_30e.py",
]
custom_imports = dict(imports=["mmvanilla", "mmvanilla.cls_head"], allow_failed_imports=False)

train_pipeline = [
    dict(type="RandomCrop", crop_size=28, padding=2),
    dict(type="RandomFlip", prob=0.5, direction="horizontal"),
    dict(type="PackInputs"),
]
train_dataloader = dict(batch_size=128, dataset=dict(indices=20000, pipeline=train_pipeline))
optim_wrapper = dict(type="BFloat16OptimWrapper", optimizer=dict(lr=3e-3, weight_decay=0.05))

max_epochs = 10
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = [
    dict(_base_.param_scheduler[0], end=1),
    dict(_base_.param_scheduler[1], begin=1, end=max_epochs),
]
default_hooks = dict(checkpoint=dict(interval=max_epochs))
# Alone in its list, so that `custom_hooks=[]` switches nothing off but it.
custom_hooks = [dict(type="DeepTrainingHook", decay_epochs=max_epochs // 2)]

# Other ways of deep training, for the rows of each network.
epochs = max_epochs
decay, merge = "custom_hooks.0.decay_epochs", "custom_hooks.0.merge"
third = dict(lr_mult=1 / 3)
lamb = {"optim_wrapper.optimizer.type": "Lamb"}
deep_rows = dict(
    lambda_one={decay: 0},
    merge_early={decay: epochs // 5, merge: True},
    merge_half={merge: True},
    full_third_lr={
        "optim_wrapper.paramwise_cfg": dict(custom_keys={".first.": third, ".second.": third})
    },
    full_lamb=lamb,
    lambda_one_lamb={decay: 0, **lamb},
)
