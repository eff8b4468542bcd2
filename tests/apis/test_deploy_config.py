"""The config of the deploy form: what becomes ``deploy=True``, and what is not fetched."""

import pytest
from mmengine.config import Config
from mmengine.model import PretrainedInit

from mmvanilla import ConvPair, DeepTrainingHook, VanillaNet
from mmvanilla.apis.deploy_config import deploy_config


class Subclass(VanillaNet):
    """Stands for a network of the user's own."""


class OwnPair(ConvPair):
    """Stands for a pair of the user's own, which no registry knows."""


@pytest.mark.parametrize("kind", ["ConvPair", "mmengine.ConvPair", ConvPair, OwnPair], ids=str)
@pytest.mark.parametrize("key", ["conv_cfg", "predictor_cfg"])
def test_pairs_are_found_under_any_key_spelling_and_nesting(kind, key):
    pair = dict(type=kind, mid_channels=4)
    nested = [dict(a=(dict(b={key: pair}), 3)), dict(conv_cfg=dict(order=("conv",), **{key: pair}))]
    cfg = Config(dict(model=dict(backbone={key: pair}, neck=nested), resume=True))
    model = deploy_config(cfg).model
    found = [model.backbone[key], model.neck[0].a[0].b[key], model.neck[1].conv_cfg[key]]
    assert all(node["deploy"] is True and node["mid_channels"] == 4 for node in found)
    assert deploy_config(cfg).resume is False and cfg.resume is True
    assert "deploy" not in cfg.model.backbone[key]


@pytest.mark.parametrize("kind", ["VanillaNet", "mmengine.VanillaNet", VanillaNet, Subclass])
def test_our_networks_are_found_however_they_are_spelt(kind):
    deployed = deploy_config(Config(dict(model=dict(parts=[dict(type=kind, arch="5")]))))
    node = deployed.model.parts[0]
    assert node.deploy is True and isinstance(node.type, str)
    assert deploy_config(deployed).pretty_text == deployed.pretty_text


PRETRAINED = dict(type="Pretrained", checkpoint="nowhere.pth")
NORMAL = dict(type="Normal", layer="Conv2d")


@pytest.mark.parametrize(
    ("init_cfg", "left"),
    [
        (dict(PRETRAINED, type=PretrainedInit), None),
        ([PRETRAINED, NORMAL], [NORMAL]),
        ((NORMAL, dict(PRETRAINED, type="mmengine.model.PretrainedInit")), [NORMAL]),
        (NORMAL, NORMAL),
    ],
    ids=str,
)
def test_nothing_is_fetched(init_cfg, left):
    cfg = Config(dict(model=dict(type="VanillaNet", arch="5", init_cfg=init_cfg), load_from="x"))
    cfg.model.pretrained = "x"
    assert deploy_config(cfg).model.init_cfg == left and deploy_config(cfg).load_from is None
    assert "pretrained" not in deploy_config(cfg).model


@pytest.mark.parametrize("kind", ["DeepTrainingHook", DeepTrainingHook])
@pytest.mark.parametrize("place", ["default_hooks", "custom_hooks"])
def test_no_lambda_is_raised(kind, place):
    hook, other = dict(type=kind, decay_epochs=3), dict(type="EMAHook")
    hooks = dict(deep=hook, ema=other) if place == "default_hooks" else [hook, other]
    deployed = deploy_config(Config({"model": dict(type="VanillaNet", arch="5"), place: hooks}))
    assert deployed[place] == (dict(ema=other) if place == "default_hooks" else [other])
