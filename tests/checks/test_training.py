"""Layer-wise learning rates and the schedule of λ."""

import pytest
from mmengine.config import Config
from torch import nn

from mmvanilla import DeepTrainingHook, VanillaNet
from mmvanilla.checks.findings import FAULT, OK, WARNING
from mmvanilla.checks.training import check_lambda, check_layer_decay

ARCH = dict(dims=(8, 8, 16, 24), strides=(1, 2, 2))
HOOK = "DeepTrainingHook"
PRETRAINED = dict(init_cfg=dict(type="Pretrained", checkpoint="vanillanet://6"))


def config(hook=None, train_cfg=None, backbone=None, **entries):
    model = dict(type="Anything", backbone=dict(type="VanillaNet", arch=ARCH, **(backbone or {})))
    hooks = dict(custom_hooks=[hook]) if hook else {}
    train_cfg = train_cfg or dict(by_epoch=True, max_epochs=30)
    return Config(dict(model=model, train_cfg=train_cfg, **hooks, **entries))


def epochs(count, **more):
    return dict(type=HOOK, decay_epochs=count, **more)


ITERATIONS = dict(type="IterBasedTrainLoop", max_iters=100)
CASES = {
    "from scratch with the hook": (config(epochs(10)), OK, False, ""),
    "from scratch without": (config(), WARNING, False, "custom_hooks=[dict(type="),
    "fine-tuning": (config(backbone=PRETRAINED), OK, False, ""),
    "loaded": (config(load_from="weights.pth"), OK, False, ""),
    "fine-tuning with the hook": (
        config(epochs(10), backbone=PRETRAINED),
        WARNING,
        False,
        "remove",
    ),
    "λ set to 1": (config(epochs(0), backbone=PRETRAINED), OK, False, ""),
    "as long as the training": (config(epochs(30)), FAULT, False, "below max_epochs"),
    "longer": (config(epochs(31, by_epoch=False)), FAULT, False, "below max_epochs"),
    "one shorter": (config(epochs(29)), OK, False, ""),
    "later": (config(epochs(19, begin=10)), OK, False, ""),
    "too late": (config(epochs(20, begin=10)), FAULT, False, "begin + decay_epochs below max"),
    "later in iterations": (config(epochs(0, begin=1), ITERATIONS), FAULT, True, "decay_iters"),
    "fine-tuning with a jump": (
        config(epochs(0, begin=1), backbone=PRETRAINED),
        WARNING,
        False,
        "remove",
    ),
    "epochs of iterations": (config(epochs(3), ITERATIONS), FAULT, True, "decay_iters"),
    "iterations": (config(dict(type=HOOK, decay_iters=99), ITERATIONS), OK, False, ""),
    "too many": (config(dict(type=HOOK, decay_iters=100), ITERATIONS), FAULT, False, "max_iters"),
    "iterations of epochs": (config(dict(type=HOOK, decay_iters=999)), OK, False, ""),
    "misspelt": (config(dict(type=HOOK, epochs=3)), FAULT, True, "custom_hooks"),
    "a class": (config(dict(type=DeepTrainingHook, decay_epochs=30)), FAULT, False, "below"),
    "with a scope": (
        config(dict(type="mmdet.DeepTrainingHook", decay_epochs=30)),
        FAULT,
        False,
        "",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_lambda(case):
    cfg, status, certain, remedy = CASES[case]
    (found,) = check_lambda(cfg, VanillaNet(ARCH))
    assert (found.status, found.certain) == (status, certain), found
    assert remedy in found.remedy


def test_a_hook_for_a_model_without_a_lambda():
    for model in (VanillaNet(ARCH, deploy=True), VanillaNet(ARCH, deep_training=False)):
        (found,) = check_lambda(config(epochs(10)), model)
        assert found.status == FAULT and found.certain and "deploy=False" in found.remedy
        assert check_lambda(config(), model) == []


def wrapper(constructor="LayerDecayOptimWrapperConstructor", **options):
    return config(
        optim_wrapper=dict(
            type="AmpOptimWrapper",  # refuses CPUs, which is no fault of the config
            loss_scale="dynamic",
            optimizer=dict(type="AdamW", lr=1e-3),
            constructor=constructor,
            paramwise_cfg=options,
        )
    )


@pytest.mark.parametrize("layers", [None, 1, 3])
def test_layer_decay_that_fits(layers):
    (found,) = check_layer_decay(wrapper(decay_rate=0.6, num_layers=layers), VanillaNet(ARCH))
    assert found.status == OK and "rate 0.6" in found.text


@pytest.mark.parametrize(
    ("cfg", "text", "remedy"),
    [
        (wrapper(decay_rate=0.6, num_layers=4), "only 3 blocks", "num_layers=None"),
        (wrapper(decay_rate=2), "decay_rate", "optim_wrapper"),
        (wrapper(), "decay_rate", "optim_wrapper"),
    ],
)
def test_layer_decay_that_does_not_fit(cfg, text, remedy):
    (found,) = check_layer_decay(cfg, VanillaNet(ARCH))
    assert found.status == FAULT and found.certain
    assert text in found.text and remedy in found.remedy


@pytest.mark.toolbox("mmdet")
def test_a_constructor_that_does_not_know_vanillanet():
    import mmdet.engine  # noqa: F401  # registers it

    cfg = wrapper("mmdet.LearningRateDecayOptimizerConstructor", decay_rate=0.6, num_layers=3)
    cfg.optim_wrapper.paramwise_cfg.decay_type = "layer_wise"
    model = nn.Module()
    model.backbone = VanillaNet(ARCH)
    (found,) = check_layer_decay(cfg, model)
    assert found.status == FAULT and "does not know the layers of VanillaNet" in found.text
    assert "LayerDecayOptimWrapperConstructor" in found.remedy


def test_no_constructor_is_not_looked_at():
    cfg = config(optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.1)))
    assert check_layer_decay(cfg, VanillaNet(ARCH)) == []
    assert check_layer_decay(config(), VanillaNet(ARCH)) == []
