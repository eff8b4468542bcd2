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
    assert {config.toolbox for config in list_configs("segmentation")} == {"mmseg"}
