"""Types, the optimiser, the schedule of λ, and weights."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.model import PretrainedInit
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn

from mmvanilla import DeepTrainingHook, VanillaNet
from mmvanilla.checks.findings import FAULT, OK, WARNING
from mmvanilla.checks.training import (
    check_lambda,
    check_optimiser,
    check_topk,
    check_types,
    check_weights,
)
from tests.authors_model import authors_weights

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
iterations = dict(type=HOOK, decay_iters=99)
too_many = dict(type=HOOK, decay_iters=100)
# The config, what its λ is, whether training is refused, and a part of the remedy.
CASES = {
    "from scratch with the hook": (config(epochs(10)), OK, False, ""),
    "from scratch without": (config(), WARNING, False, "decay_epochs=...)]"),
    "by iterations": (config(None, ITERATIONS), WARNING, False, "decay_iters=...)]"),
    "fine-tuning": (config(backbone=PRETRAINED), OK, False, ""),
    "fine-tuning with the hook": (config(epochs(9), None, PRETRAINED), WARNING, False, "remove"),
    "named otherwise": (config(backbone=dict(init_cfg=dict(type=PretrainedInit))), OK, False, ""),
    "resumed": (config(epochs(9), resume=True, load_from="x.pth"), OK, False, ""),
    "λ set to 1": (config(epochs(0), backbone=PRETRAINED), OK, False, ""),
    "as long as the training": (config(epochs(30)), FAULT, False, "below max_epochs"),
    "one shorter": (config(epochs(29)), OK, False, ""),
    "too late": (config(epochs(20, begin=10)), FAULT, False, "begin + decay_epochs below max"),
    "epochs of iterations": (config(epochs(0, begin=1), ITERATIONS), FAULT, True, "decay_iters"),
    "iterations": (config(iterations, ITERATIONS), OK, False, ""),
    "too many": (config(too_many, ITERATIONS), FAULT, False, "max_iters"),
    "misspelt": (config(dict(type=HOOK, epochs=3)), FAULT, True, "correct the hook"),
    "a class": (config(dict(type=DeepTrainingHook, decay_epochs=30)), FAULT, False, "below"),
    "in default_hooks": (config(default_hooks=dict(deep=epochs(30))), FAULT, False, "below"),
    "twice": (config(epochs(9), default_hooks=dict(deep=epochs(10))), FAULT, True, "leave one"),
}


@pytest.mark.parametrize("case", CASES)
def test_lambda(case):
    cfg, status, certain, remedy = CASES[case]
    found = check_lambda(cfg, VanillaNet(ARCH))
    assert (found.status, found.certain) == (status, certain), found
    assert remedy in found.remedy


def test_it_says_when_pairs_merge():
    found = check_lambda(config(epochs(10, merge=True)), VanillaNet(ARCH))
    assert found.text == "rises to 1 within 10 of 30 epochs, then the pairs are merged"


def test_a_hook_for_a_model_without_a_lambda():
    for model in (VanillaNet(ARCH, deploy=True), VanillaNet(ARCH, deep_training=False)):
        found = check_lambda(config(epochs(10)), model)
        assert found.status == FAULT and found.certain and "deploy=False" in found.remedy
        assert check_lambda(config(), model) is None


def wrapper(constructor="LayerDecayOptimWrapperConstructor", **options):
    # It refuses CPUs, which is no fault of the config.
    amp = dict(type="AmpOptimWrapper", loss_scale="dynamic", optimizer=dict(type="AdamW", lr=1e-3))
    return config(optim_wrapper=dict(amp, constructor=constructor, paramwise_cfg=options))


@pytest.mark.parametrize(
    ("cfg", "text", "remedy"),
    [
        (wrapper(decay_rate=0.6, num_layers=4), "only 3 blocks", "correct"),
        (wrapper(decay_rate=2), "decay_rate", "correct"),
        (wrapper(), "decay_rate", "correct"),
        (wrapper("NoSuchConstructor"), "NoSuchConstructor", "constructor='LayerDecayOptim"),
        (wrapper("DefaultOptimWrapperConstructor", norm_decay_mult=0), "base_wd", "correct"),
    ],
)
def test_an_optimiser_that_does_not_fit(cfg, text, remedy):
    (found,) = check_optimiser(cfg, VanillaNet(ARCH))
    assert found.status == FAULT and found.certain and text in found.text
    assert found.remedy.startswith(remedy)
    (found,) = check_optimiser(wrapper(decay_rate=0.6, num_layers=3), VanillaNet(ARCH))
    assert found.status == OK and "AdamW" in found.text


@pytest.mark.parametrize(("kind", "status"), [("SGD", WARNING), ("AdamW", OK)])
def test_sgd_from_scratch(kind, status):
    cfg = config(optim_wrapper=dict(optimizer=dict(type=kind, lr=0.1)))
    assert next(check_optimiser(cfg, VanillaNet(ARCH))).status == status
    cfg.load_from = "weights.pth"
    assert next(check_optimiser(cfg, VanillaNet(ARCH))).status == OK
    assert not list(check_optimiser(config(), VanillaNet(ARCH)))


class OwnWrapper(OptimWrapper):
    def __init__(self, rho, **kwargs):
        super().__init__(**kwargs)


def test_a_wrapper_with_options_of_its_own(monkeypatch):
    monkeypatch.setitem(OPTIM_WRAPPERS.module_dict, "OwnWrapper", OwnWrapper)
    options = dict(type="OwnWrapper", rho=0.1, optimizer=dict(type="AdamW"))
    (found,) = check_optimiser(config(optim_wrapper=options), VanillaNet(ARCH))
    assert found.status == OK


@pytest.mark.parametrize(
    ("imports", "fits"),
    [(None, False), ("mmvanilla", True), (["other", "mmvanilla.cls_head"], True)],
)
def test_mmvanilla_must_be_named(imports, fits):
    cfg = config(custom_imports=dict(imports=imports)) if imports else config()
    assert [item.subject for item in check_types(cfg)] == ["custom_imports"] * (not fits)
    for found in check_types(cfg):
        assert "'mmvanilla']" in found.remedy and not found.certain


@pytest.mark.parametrize(
    "entries",
    [
        dict(default_hooks=dict(deep=dict(type=HOOK, decay_epochs=1))),
        dict(optim_wrapper=dict(constructor="LayerDecayOptimWrapperConstructor")),
        dict(load_from="vanillanet://13"),
    ],
)
def test_what_is_ours_beside_the_model(entries):
    assert [x.subject for x in check_types(Config(entries))] == ["custom_imports"]


@pytest.mark.parametrize(
    ("prefix", "saved", "fits"),
    [
        ("backbone.", "backbone.", True),
        ("backbone", "backbone.", True),  # mmengine appends the dot
        ("back", "backbone.", False),
        ("backbone.", "encoder.", False),
        (None, "backbone.", False),
        (None, "", True),
        (None, "module.", True),
    ],
)
def test_weights_and_their_prefix(tmp_path, prefix, saved, fits):
    path = tmp_path / "weights.pth"
    init_cfg = dict(type="Pretrained", checkpoint=str(path), prefix=prefix)
    model = nn.Module()
    model.backbone = VanillaNet(ARCH, init_cfg=init_cfg)
    weights = {f"{saved}{key}": value for key, value in model.backbone.state_dict().items()}
    torch.save(dict(state_dict=weights), path)
    assert [item.certain for item in check_weights(config(), model)] == [True] * (not fits)
    path.unlink()
    (found,) = check_weights(config(), model)
    assert found.text == f"model.backbone.init_cfg: {path} is not there"


def test_weights_that_are_named_by_an_address(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for address in ("gone.pth", "vanillanet://./gone.pth?in_channels=1", "file:///gone.pth"):
        (found,) = check_weights(config(load_from=address), VanillaNet(ARCH))
        assert found.text.endswith("gone.pth is not there") and found.text.startswith("load_from")
    assert not list(check_weights(config(load_from="vanillanet://6"), VanillaNet(ARCH)))
    torch.save(dict(model=authors_weights(ARCH["dims"], num_classes=3)), "authors.pth")
    for prefix in (None, "backbone"):
        init_cfg = dict(type="Pretrained", checkpoint="vanillanet://./authors.pth", prefix=prefix)
        found = list(check_weights(config(), VanillaNet(ARCH, init_cfg=init_cfg)))
        assert [item.certain for item in found] == [True] * (prefix is None)
    Path("bad.pth").write_bytes(b"junk")
    init_cfg = dict(type="Pretrained", checkpoint="bad.pth")
    (found,) = check_weights(config(), VanillaNet(ARCH, init_cfg=init_cfg))
    assert found.certain and "bad.pth cannot be read" in found.text


@pytest.mark.parametrize("place", ["val_evaluator", "test_evaluator"])
def test_accuracies_of_more_classes_than_there_are(place):
    cfg = config(**{place: [dict(type="Accuracy", topk=(1, 10)), dict(type="Other")]})
    cfg.model.head = dict(num_classes=6)
    (found,) = check_topk(cfg)
    assert found.subject == place and found.certain == (place == "val_evaluator")
    assert "topk=(1, 10) asks for more than the 6 classes" in found.text
    cfg.model.head.num_classes = 10
    assert not [*check_topk(cfg)]
