"""What `mmvanilla configs` lists."""

import pytest

from mmvanilla.apis.config_list import list_configs
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
        ("RetinaNet with", "retinanet_vanillanet.py"),
        ("*CIFAR100", "small/vanillanet6_cifar100.py"),
        ("*9_in?k", "imagenet/vanillanet9_in1k.py"),
    ],
)
def test_a_pattern_chooses(pattern, name):
    assert [config.name for config in list_configs(pattern)] == [name]


@pytest.mark.parametrize("pattern", ["segmentation", "mmseg", "UPerNet"])
def test_a_pattern_may_be_a_task_or_a_toolbox(pattern):
    assert {config.toolbox for config in list_configs(pattern)} == {"mmseg"}
