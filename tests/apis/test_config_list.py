"""What `mmvanilla configs` lists."""

import pytest

from mmvanilla.apis.config_list import list_configs
from mmvanilla.utils.paths import config_names


def test_all_are_listed_with_what_they_are():
    configs = list_configs()
    assert sorted(configs) == config_names()
    for name, about in configs.items():
        assert 20 < len(about) <= 98, name
        assert not about.endswith((".", ",")), about


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("RetinaNet with", "retinanet_vanillanet.py"),
        ("*CIFAR100", "small/vanillanet6_cifar100.py"),
    ],
)
def test_a_pattern_chooses(pattern, name):
    assert list(list_configs(pattern)) == [name]
