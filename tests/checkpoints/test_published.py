"""The table of the authors' files, and naming a variant by its widths."""

import pytest

from mmvanilla.checkpoints.conversion import identify_arch
from mmvanilla.checkpoints.zoo import PUBLISHED
from mmvanilla.models.archs import ARCHS, Arch, resolve_arch


def test_the_files_are_those_of_the_release():
    assert sorted(entry.file for entry in PUBLISHED.values()) == sorted(
        [
            *(f"vanillanet_{depth}.pth" for depth in range(5, 14)),
            "vanillanet_13_x1_5.pth",
            "vanillanet_13_x1_5_ada_pool.pth",
            "vanillanet_13_act_num_4_kd_pretrain.pth",
            "mask_rcnn_vanillanet_13.pth",
            "retinanet_vanillanet_13.pth",
        ]
    )
    assert set(ARCHS) <= set(PUBLISHED)
    assert all(entry.arch in ARCHS for entry in PUBLISHED.values())


@pytest.mark.parametrize("name", [name for name in ARCHS if "1.5x" not in name])
def test_widths_name_the_variant(name):
    assert identify_arch(ARCHS[name].dims) == name


def test_the_two_of_the_same_widths_need_to_be_told():
    dims = ARCHS["13-1.5x"].dims
    with pytest.raises(ValueError, match="two variants: give --arch 13-1.5x or --arch 13-1.5x-ada"):
        identify_arch(dims)
    assert identify_arch(dims, arch="13-1.5x-ada") == "13-1.5x-ada"
    assert identify_arch(dims, origin="my/vanillanet_13_x1_5_ada_pool.pth") == "13-1.5x-ada"
    assert identify_arch(dims, origin="my/vanillanet_13_x1_5.pth") == "13-1.5x"
    assert identify_arch(dims, origin="best.pth vanillanet_13_x1_5_ada_pool") == "13-1.5x-ada"


def test_widths_of_no_variant_need_strides():
    with pytest.raises(ValueError, match="no published variant has.* strides of the 2 blocks"):
        identify_arch((8, 16, 24))
    assert identify_arch((8, 16, 24), strides=[2, 1]) == dict(dims=(8, 16, 24), strides=(2, 1))
    with pytest.raises(ValueError, match="must be one longer than strides"):
        identify_arch((8, 16, 24), strides=[2])
    with pytest.raises(ValueError, match="arch and strides; give only one"):
        identify_arch((8, 16, 24), arch="13", strides=[2, 1])


def test_a_wrong_arch_is_refused():
    with pytest.raises(ValueError, match="arch='12' has .*; they fit 13"):
        identify_arch(ARCHS["13"].dims, arch="12")
    with pytest.raises(ValueError, match="they fit no published variant"):
        identify_arch((8, 16), arch="12")


def test_a_whole_arch_becomes_a_config():
    arch = dict(
        dims=[8, 16], strides=[2], adaptive_pools=[4], stem_stride=3, stem_padding=1, input_size=64
    )
    named = identify_arch((8, 16), arch=arch)
    assert resolve_arch(named) == Arch(
        dims=(8, 16),
        strides=(2,),
        adaptive_pools=(4,),
        stem_stride=3,
        stem_padding=1,
        input_size=64,
    )
