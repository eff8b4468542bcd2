"""What `mmvanilla configs` lists."""

import pytest

from mmvanilla.apis.config_list import list_configs
from mmvanilla.utils import paths
from mmvanilla.utils.paths import config_names


def test_all_are_listed_with_what_they_are():
    configs = list_configs()
    assert sorted(config.name for config in configs) == config_names()
    for config in configs:
        assert config.toolbox and config.task, config.name
        assert 20 < len(config.about) <= 98, config.name
        assert not config.about.endswith((".", ",")), config.about
    assert len({config.about for config in configs}) == len(configs)


def test_numbers_are_in_their_order():
    names = [config.name for config in list_configs("authors' recipe")]
    depths = [name for name in names if name.startswith("imagenet/")]
    assert depths == [f"imagenet/vanillanet{depth}_in1k.py" for depth in range(5, 11)]


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("rotated", "family/rotated_retinanet_vanillanet_dota.py"),
        ("fcos3d", "family/fcos3d_vanillanet_nuscenes.py"),
        ("RetinaNet with", "retinanet_vanillanet.py"),
        ("small/*cifar*", "small/vanillanet6_cifar100.py"),
        ("*CIFAR100", "small/vanillanet6_cifar100.py"),
        ("*9_in?k", "imagenet/vanillanet9_in1k.py"),
    ],
)
def test_a_pattern_chooses(pattern, name):
    assert [config.name for config in list_configs(pattern)] == [name]


@pytest.mark.parametrize("pattern", ["segmentation", "mmseg", "UPerNet"])
def test_a_pattern_may_be_a_task_or_a_toolbox(pattern):
    assert {config.toolbox for config in list_configs(pattern)} == {"mmseg"}


def test_a_pattern_that_fits_nothing():
    assert list_configs("nowhere") == []


def test_configs_that_say_it_in_a_docstring_or_nowhere(tmp_path, monkeypatch):
    (tmp_path / "configs").mkdir()
    (tmp_path / "setup.py").touch()
    monkeypatch.setattr(paths, "_PACKAGE", tmp_path / "mmvanilla")
    (tmp_path / "configs" / "doc.py").write_text('"""It says so.\n\nMore.\n"""\n')
    (tmp_path / "configs" / "none.py").write_text("# \nx = 1\n")
    (tmp_path / "configs" / "circle.py").write_text("_base_ = ['circle.py', 'far.py', 'seg.py']\n")
    (tmp_path / "configs" / "seg.py").write_text("# mmdet\n_base_ = 'mmseg::x.py'  # mmpretrain\n")
    found = {config.name: (config.about, config.toolbox) for config in list_configs()}
    assert found == {
        "doc.py": ("It says so", ""),
        "none.py": ("", ""),
        "circle.py": ("", "mmseg"),
        "seg.py": ("mmdet", "mmseg"),
    }
