"""The fused pair of files: written completely and rightly, or not at all."""

import copy

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from torch import nn

from mmvanilla import VanillaNet, fuse_model, set_act_lambda
from mmvanilla.apis.complexity import measure_complexity
from mmvanilla.apis.model import load_model
from mmvanilla.checkpoints.writing import write_checkpoint
from mmvanilla.deploy import fuse_checkpoint as module
from mmvanilla.deploy.comparison import compare_forms, first_mismatch
from mmvanilla.models.merging import merge_pairs
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
def setup(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_LATENCY_ROUNDS", 2)
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
    data = dict(classes=("a", "b"), palette=np.array([(1, 2, 3)]))
    meta = dict(dataset_meta=data, epoch=3, cfg="secret", hook=set())
    optimizer = dict(lr=torch.ones(9))
    torch.save(dict(meta=meta, state_dict=model.state_dict(), optimizer=optimizer), checkpoint)
    names = dict(config=config, checkpoint=checkpoint, out=tmp_path / "fused.pth")
    return {name: str(path) for name, path in names.items()}, model


def fuse_checkpoint(**arguments):
    return module.fuse_checkpoint(**{"sizes": [(32, 32)], **arguments})


def left_in(folder):
    return sorted(path.name for path in folder.iterdir())


UNTOUCHED = ["config.py", "epoch_1.pth"]


def test_fused_checkpoint_and_config_give_the_same_outputs(setup, tmp_path):
    arguments, model = setup
    report = fuse_checkpoint(**arguments, sizes=None)
    assert report.num_fused == 20 and report.max_difference < 1e-5
    assert "features or logits at 224x224" in report.compared
    assert "NOT compared: predictions (TwoBackbones is of none of the three" in report.compared
    assert report.forms[0].complexity == measure_complexity(model, (224, 224))
    assert report.forms[1].complexity.params < report.forms[0].complexity.params
    assert report.forms[1].latency_ms > 0
    assert left_in(tmp_path) == [*UNTOUCHED, "fused.pth", "fused.py"]

    cfg = Config.fromfile(str(report.config))
    assert cfg.model.left.deploy and cfg.model.parts[0].net.deploy
    assert cfg.model.parts[0].net.init_cfg is None and cfg.load_from is None
    fused, _ = load_model(cfg, arguments["out"])
    x = torch.randn(1, 3, 96, 64)
    assert relative_difference(model(x)[0].detach(), fused(x)[0].detach()) < 1e-5
    last, levels = fused.train()(x)  # it can be trained on
    sum(each.sum() for each in (last, *levels)).backward()
    assert all(each.grad is not None for each in fused.parameters())
    # The file holds tensors and plain values alone, the text of the config among them.
    written = torch.load(arguments["out"], weights_only=True)
    assert set(written) == {"meta", "state_dict"}
    assert written["meta"].pop("cfg") == report.config.read_text()
    assert written["meta"].pop("dataset_meta") == dict(classes=("a", "b"), palette=[[1, 2, 3]])
    assert set(written["meta"]) == {"epoch", "fused_from", "mmvanilla_version"}
    for value in written["state_dict"].values():
        assert value.stride() == torch.empty(value.shape).stride()


def test_a_checkpoint_of_merged_pairs_is_fused_by_the_config_in_training_form(setup):
    arguments, model = setup
    x = torch.ones(1, 3, 96, 64)
    expected = model(x)[0].detach()
    merge_pairs(model)
    torch.save(dict(meta={}, state_dict=model.state_dict()), arguments["checkpoint"])
    report = fuse_checkpoint(**arguments)
    fused, _ = load_model(Config.fromfile(str(report.config)), arguments["out"])
    assert relative_difference(expected, fused(x)[0].detach()) < 1e-5


def test_neither_other_files_nor_fused_weights_are_taken(setup, tmp_path):
    arguments, _ = setup
    (tmp_path / "fused.py").write_text("precious")
    with pytest.raises(FileExistsError, match="--overwrite"):
        fuse_checkpoint(**arguments)
    with pytest.raises(ValueError, match="also an input"):
        fuse_checkpoint(**{**arguments, "out": arguments["checkpoint"]}, overwrite=True)
    assert (tmp_path / "fused.py").read_text() == "precious"
    assert not (tmp_path / "fused.pth").exists()
    report = fuse_checkpoint(**arguments, overwrite=True)
    assert "precious" not in (tmp_path / "fused.py").read_text()
    again = dict(checkpoint=arguments["out"], out=str(tmp_path / "again.pth"))
    with pytest.raises(ValueError, match="nothing to fuse"):
        fuse_checkpoint(**again, config=str(report.config))
    with pytest.raises(RuntimeError, match="are fused"):
        fuse_checkpoint(**again, config=arguments["config"])


def test_what_stands_in_the_file_is_compared(setup, tmp_path, monkeypatch):
    def spoil(content, *arguments, **options):
        content["state_dict"]["fc.bias"] = torch.ones(2)
        write_checkpoint(content, *arguments, **options)

    monkeypatch.setattr(module, "write_checkpoint", spoil)
    with pytest.raises(RuntimeError, match=r"nothing was written: fc\.bias has other values"):
        fuse_checkpoint(**setup[0])
    assert left_in(tmp_path) == UNTOUCHED


def fade(model):
    set_act_lambda(model, 0.25)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (fade, RuntimeError, r"λ = 0\.25"),
        (lambda model: model.fc.bias.data.fill_(float("inf")), ValueError, r"fc\.bias has values"),
        (lambda model: model.fc.register_parameter("bias", None), RuntimeError, r"fc\.bias"),
        (lambda model: model.add_module("neck", nn.Linear(1, 1)), RuntimeError, r"neck\.weight"),
    ],
)
def test_weights_that_cannot_be_fused_are_refused(setup, tmp_path, change, error, message):
    arguments, model = setup
    change(model)
    torch.save(dict(state_dict=model.state_dict()), arguments["checkpoint"])
    with pytest.raises(error, match=message):
        fuse_checkpoint(**arguments)
    assert left_in(tmp_path) == UNTOUCHED


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (dict(checkpoint="nowhere.pth"), FileNotFoundError, "nowhere.pth"),
        (dict(out="fused.onnx"), ValueError, r"\.pth"),
        (dict(tolerance=1e-12), RuntimeError, "more than 1e-12; nothing was written"),
        (dict(tolerance=float("nan")), RuntimeError, "more than nan; nothing was written"),
        (dict(sizes=[(1, 1)]), RuntimeError, "does not take an image of 1x1.*--sizes H W"),
    ],
)
def test_wrong_arguments_are_named(setup, tmp_path, change, error, message):
    with pytest.raises(error, match=message):
        fuse_checkpoint(**{**setup[0], **change})
    assert left_in(tmp_path) == UNTOUCHED


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_forms_are_compared_in_their_type_and_on_their_device(device):
    net = randomise(VanillaNet(TINY)).double().to(device).eval()
    fused = fuse_model(net)
    assert compare_forms(net, fused, [(64, 96)], 1e-9)[0] < 1e-9
    assert first_mismatch(fused, copy.deepcopy(fused)) is None
    # Not only what comes last: a coarse level may agree while a fine one does not.
    with torch.no_grad():
        fused.blocks[0].act.conv.bias.add_(0.1)
    assert first_mismatch(fuse_model(net), fused) == "blocks.0.act.conv.bias has other values"
    with pytest.raises(RuntimeError, match="features or logits of the fused model differ"):
        compare_forms(net, fused, [(64, 96)], 1e-4)
