"""`mmvanilla::NAME` in mmengine: as a base, and in its hub."""

import pytest
from mmengine.config import Config
from mmengine.hub import get_config, get_model

from mmvanilla.utils.config_prefix import register_prefix
from mmvanilla.utils.paths import config_path


@pytest.mark.toolbox("mmdet")
@pytest.mark.parametrize(
    "name",
    ["retinanet_vanillanet.py", "retinanet_vanillanet", "shapes/maskrcnn_vanillanet_shapes.py"],
)
def test_a_base_means_the_file_and_gets_no_scope_of_its_own(tmp_path, name):
    (tmp_path / "theirs.py").write_text(
        f"_base_ = 'mmvanilla::{name}'\noptim_wrapper = dict(optimizer=dict(lr=1.0))\n"
        "copied = _base_.train_dataloader\n"
    )
    found = Config.fromfile(tmp_path / "theirs.py").to_dict()
    expected = Config.fromfile(config_path(name)).to_dict()
    assert found.pop("copied") == expected["train_dataloader"]
    expected["optim_wrapper"]["optimizer"]["lr"] = 1.0
    assert found == expected


def test_bases_of_others_are_read_as_before(tmp_path):
    (tmp_path / "base.py").write_text("x = 1\n")
    (tmp_path / "theirs.py").write_text("_base_ = 'base.py'\n")
    assert Config.fromfile(tmp_path / "theirs.py").x == 1
    (tmp_path / "wrong.py").write_text("_base_ = 'unknown::a/b.py'\n")
    with pytest.raises(AssertionError, match="unknown"):
        Config.fromfile(tmp_path / "wrong.py")


def test_registering_again_does_nothing():
    before = Config._get_cfg_path
    register_prefix()
    assert Config._get_cfg_path is before


@pytest.mark.toolbox("mmpretrain")
def test_the_hub_of_mmengine_gives_configs_and_the_address_of_their_weights():
    cfg = get_config("mmvanilla::imagenet/vanillanet9_in1k.py", pretrained=True)
    assert cfg.model.backbone.arch == "9"
    assert cfg.model_path.endswith("/ckpt/vanillanet_9.pth")
    assert get_config("mmvanilla::_base_/../imagenet/vanillanet9_in1k.py").model == cfg.model


@pytest.mark.toolbox("mmpretrain")
def test_the_hub_of_mmengine_refuses_models_and_says_what_works():
    with pytest.raises(RuntimeError, match=r"mmpretrain\.get_model\('vanillanet-9_in1k'\)"):
        get_model("mmvanilla::imagenet/vanillanet9_in1k.py")
