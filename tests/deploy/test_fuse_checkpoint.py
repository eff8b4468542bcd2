import copy
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.model import PretrainedInit
from mmengine.registry import MODELS
from torch import nn

from mmvanilla import VanillaNet
from mmvanilla.apis.complexity import measure_complexity
from mmvanilla.apis.deploy_config import deploy_config
from mmvanilla.apis.model import load_model
from mmvanilla.deploy.comparison import largest_difference
from mmvanilla.deploy.fuse_checkpoint import fuse_checkpoint
from mmvanilla.models.conv_pair import ConvPair
from tests.helpers import TINY, randomise, relative_difference


@MODELS.register_module()
class TwoBackbones(nn.Module):
    """A model with VanillaNets where no convention puts them."""

    def __init__(self, left, parts):
        super().__init__()
        self.left = MODELS.build(left)
        self.parts = nn.ModuleList(MODELS.build(part["net"]) for part in parts)
        self.fc = nn.Conv2d(self.left.out_channels[-1], 2, 1)

    def forward(self, x):
        return self.fc(self.left(x)[-1]), self.parts[0](x)


@pytest.fixture
def setup(tmp_path):
    backbone = dict(type="VanillaNet", arch=TINY)
    config = tmp_path / "config.py"
    config.write_text(
        "custom_imports = dict(imports=['mmvanilla'])\n"
        f"model = dict(type='TwoBackbones', left={backbone!r}, "
        f"parts=[dict(net=dict(arch={TINY!r}, act_num=1, type='VanillaNet', "
        "init_cfg=dict(type='Pretrained', checkpoint='nowhere.pth')))])\n"
        "load_from = 'somewhere.pth'\n"
    )
    model = randomise(MODELS.build(Config.fromfile(str(config)).model)).eval()
    checkpoint = tmp_path / "epoch_1.pth"
    meta = dict(
        dataset_meta=dict(classes=("a", "b"), palette=[(1, 2, 3)]),
        epoch=3,
        cfg="secret",
        hook=set(),
    )
    torch.save(
        dict(meta=meta, state_dict=model.state_dict(), optimizer=dict(lr=torch.ones(9))), checkpoint
    )
    return dict(
        config=str(config), checkpoint=str(checkpoint), out=str(tmp_path / "fused.pth")
    ), model


def left_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_fused_checkpoint_and_config_give_the_same_outputs(setup, tmp_path):
    arguments, model = setup
    steps = []
    report = fuse_checkpoint(**arguments, measured_size=(64, 64), progress=steps.append)

    assert report.num_fused == 20
    assert report.max_difference < 1e-5
    assert steps == ["loading", "fusing", "comparing", "measuring", "writing"]
    assert report.before.complexity == measure_complexity(model, (64, 64))
    assert report.after.complexity.params < report.before.complexity.params
    assert report.after.latency_ms > 0
    assert left_in(tmp_path) == ["config.py", "epoch_1.pth", "fused.pth", "fused.py"]

    cfg = Config.fromfile(str(report.config))
    assert cfg.model.left.deploy and cfg.model.parts[0].net.deploy
    assert cfg.model.parts[0].net.init_cfg is None and cfg.load_from is None
    fused, meta = load_model(cfg, str(report.checkpoint))
    assert isinstance(fused.left, VanillaNet) and fused.left.deploy
    assert meta["dataset_meta"] == dict(classes=["a", "b"], palette=[[1, 2, 3]])
    x = torch.randn(1, 3, 96, 64)
    assert relative_difference(model(x)[0].detach(), fused(x)[0].detach()) < 1e-5


def test_fused_file_holds_tensors_and_plain_values_alone(setup):
    arguments, _ = setup
    fuse_checkpoint(**arguments)
    written = torch.load(arguments["out"], weights_only=True)
    assert set(written) == {"meta", "state_dict"}
    assert set(written["meta"]) == {
        *("cfg", "dataset_meta", "epoch", "fused_from", "mmvanilla_version")
    }
    assert written["meta"]["cfg"] == Path(arguments["out"]).with_suffix(".py").read_text()
    stored = Config.fromstring(written["meta"]["cfg"], ".py")
    assert stored.model.left.deploy and stored.custom_imports.imports == ["mmvanilla"]
    for value in written["state_dict"].values():
        assert value.stride() == torch.empty(value.shape).stride()


def test_existing_outputs_are_kept(setup, tmp_path):
    arguments, _ = setup
    (tmp_path / "fused.py").write_text("precious")
    with pytest.raises(FileExistsError, match="--overwrite"):
        fuse_checkpoint(**arguments)
    assert (tmp_path / "fused.py").read_text() == "precious"
    assert not (tmp_path / "fused.pth").exists()
    fuse_checkpoint(**arguments, overwrite=True)
    assert "precious" not in (tmp_path / "fused.py").read_text()


def save_changed(setup, change):
    arguments, model = setup
    model = copy.deepcopy(model)
    change(model)
    torch.save(dict(state_dict=model.state_dict()), arguments["checkpoint"])


def test_a_fading_lambda_is_refused_unless_forced(setup, tmp_path):
    def fade(model):
        for module in model.modules():
            if hasattr(module, "act_lambda"):
                module.act_lambda = 0.25

    save_changed(setup, fade)
    with pytest.raises(RuntimeError, match=r"λ = 0\.25.*--force"):
        fuse_checkpoint(**setup[0])
    assert left_in(tmp_path) == ["config.py", "epoch_1.pth"]
    fuse_checkpoint(**setup[0], force=True)
    assert (tmp_path / "fused.pth").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(setup, tmp_path, value):
    save_changed(setup, lambda model: model.fc.bias.data.fill_(value))
    with pytest.raises(ValueError, match=r"epoch_1\.pth: fc\.bias cannot be used"):
        fuse_checkpoint(**setup[0])
    assert left_in(tmp_path) == ["config.py", "epoch_1.pth"]


def test_beyond_tolerance_nothing_is_written(setup, tmp_path):
    with pytest.raises(RuntimeError, match="more than 1e-12"):
        fuse_checkpoint(**setup[0], tolerance=1e-12)
    assert left_in(tmp_path) == ["config.py", "epoch_1.pth"]


def test_what_is_fused_already_is_refused(setup):
    arguments, _ = setup
    report = fuse_checkpoint(**arguments)
    again = dict(
        config=str(report.config), checkpoint=arguments["out"], out=arguments["out"] + ".pth"
    )
    with pytest.raises(ValueError, match="nothing to fuse"):
        fuse_checkpoint(**again)
    with pytest.raises(RuntimeError, match="are fused"):
        fuse_checkpoint(**{**again, "config": arguments["config"]})


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (dict(config="nowhere.py"), FileNotFoundError, "no config at nowhere.py"),
        (dict(checkpoint="nowhere.pth"), FileNotFoundError, "nowhere.pth"),
        (dict(out="fused.onnx"), ValueError, r"\.pth"),
    ],
)
def test_wrong_paths_are_named(setup, change, error, message):
    with pytest.raises(error, match=message):
        fuse_checkpoint(**{**setup[0], **change})


def test_missing_and_left_over_weights_are_refused(setup, tmp_path):
    arguments, model = setup
    weights = model.state_dict()
    torch.save({**weights, "neck.weight": torch.ones(1)}, arguments["checkpoint"])
    with pytest.raises(RuntimeError, match="neck.weight"):
        fuse_checkpoint(**arguments)
    del weights["fc.bias"]
    torch.save(weights, arguments["checkpoint"])
    with pytest.raises(RuntimeError, match="fc.bias"):
        fuse_checkpoint(**arguments)
    assert left_in(tmp_path) == ["config.py", "epoch_1.pth"]


def test_a_truncated_checkpoint_is_refused(setup):
    arguments, _ = setup
    with open(arguments["checkpoint"], "r+b") as file:
        file.truncate(1000)
    with pytest.raises(ValueError, match="truncated"):
        fuse_checkpoint(**arguments)


class Subclass(VanillaNet):
    """Stands for a network of the user's own."""


class OwnPair(ConvPair):
    """Stands for a pair of the user's own, which no registry knows."""


PAIRS = ("ConvPair", "mmengine.ConvPair", "mmvanilla.models.conv_pair.ConvPair", ConvPair, OwnPair)


@pytest.mark.parametrize("kind", PAIRS, ids=str)
@pytest.mark.parametrize("key", ["conv_cfg", "predictor_cfg", "cfg"])
def test_deploy_config_finds_pairs_under_any_key_spelling_and_nesting(kind, key):
    pair = dict(type=kind, mid_channels=4)
    nested = [dict(a=(dict(b={key: pair}), 3)), dict(conv_cfg=dict(order=("conv",), **{key: pair}))]
    cfg = Config(dict(model=dict(backbone={key: pair}, neck=nested), resume=True))
    deployed = deploy_config(cfg)
    found = [
        deployed.model.backbone[key],
        deployed.model.neck[0].a[0].b[key],
        deployed.model.neck[1].conv_cfg[key],
    ]
    assert all(node["deploy"] is True and node["mid_channels"] == 4 for node in found)
    assert deployed.resume is False and cfg.resume is True
    assert "deploy" not in cfg.model.backbone[key]

    plain = deploy_config(cfg, plain_networks=True)
    expected = None if key == "conv_cfg" else dict(type="Conv2d")
    assert plain.model.backbone[key] == plain.model.neck[0].a[0].b[key] == expected


def test_plain_networks_keep_what_a_plain_convolution_has_too():
    pair = dict(type="ConvPair", padding_mode="circular", norm_cfg=dict(type="BN"))
    cfg = Config(dict(model=dict(conv_cfg=pair, other=dict(conv_cfg=dict(type="Conv2d")))))
    plain = deploy_config(cfg, plain_networks=True)
    assert plain.model.conv_cfg == dict(type="Conv2d", padding_mode="circular")
    assert plain.model.other.conv_cfg == dict(type="Conv2d")


@pytest.mark.parametrize("kind", ["VanillaNet", "mmengine.VanillaNet", VanillaNet, Subclass])
def test_deploy_config_finds_our_networks_however_they_are_spelt(kind):
    deployed = deploy_config(Config(dict(model=dict(parts=[dict(type=kind, arch="5")]))))
    node = deployed.model.parts[0]
    assert node.deploy is True
    assert isinstance(node.type, str)
    assert deploy_config(deployed).pretty_text == deployed.pretty_text


PRETRAINED = dict(type="Pretrained", checkpoint="nowhere.pth")
NORMAL = dict(type="Normal", layer="Conv2d")


@pytest.mark.parametrize(
    ("init_cfg", "left"),
    [
        (PRETRAINED, None),
        (dict(PRETRAINED, type=PretrainedInit), None),
        ([PRETRAINED, NORMAL], [NORMAL]),
        ((NORMAL, dict(PRETRAINED, type="mmengine.model.PretrainedInit")), [NORMAL]),
        (NORMAL, NORMAL),
        ([], []),
        (None, None),
    ],
    ids=str,
)
def test_nothing_is_fetched_by_a_deploy_config(init_cfg, left):
    cfg = Config(dict(model=dict(type="VanillaNet", arch="5", init_cfg=init_cfg), load_from="x"))
    deployed = deploy_config(cfg)
    assert deployed.model.init_cfg == left
    assert deployed.load_from is None


def test_largest_difference_sees_every_level_and_the_logits():
    # Not only what comes last: a coarse level may agree while a fine one does not.
    model = randomise(VanillaNet(TINY)).eval()
    other = copy.deepcopy(model)
    assert largest_difference(model, other, (64, 64)) == 0.0
    other.blocks[0].act.conv.norm.bias.data += 1e-2 * model(torch.randn(1, 3, 64, 64))[0].std()
    assert largest_difference(model, other, (64, 64)) > 1e-4
