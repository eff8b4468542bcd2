import pytest

from mmvanilla.models.archs import ARCHS, resolve_arch

LEVELS = {"5": (0, 1, 2, 3), "6": (0, 1, 2, 4), "7": (1, 2, 3, 5), "13": (1, 2, 9, 11)}


def test_a_level_is_the_last_layer_of_its_resolution():
    assert {name: ARCHS[name].levels for name in LEVELS} == LEVELS
    assert ARCHS["13-1.5x-ada"].levels == LEVELS["13"]


def test_names_and_dicts_resolve_to_the_same():
    arch = ARCHS["6"]
    as_dict = dict(dims=list(arch.dims), strides=list(arch.strides))
    forms = {resolve_arch(form) for form in ("6", 6, as_dict, arch)}
    assert forms == {arch}


def test_width_mult_scales_to_multiples_of_eight():
    assert resolve_arch("6", 0.125).dims == (64, 128, 256, 512, 512)
    assert resolve_arch("5", 0.3).dims == (152, 304, 616, 1232)
    assert resolve_arch("5", 1e-6).dims == (8, 8, 8, 8)
    assert resolve_arch("13", 1.5) == ARCHS["13-1.5x"]
    for width_mult in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="width_mult"):
            resolve_arch("5", width_mult)


POOLS = dict(dims=(8, 8), strides=(2,), adaptive_pools=(7,))


@pytest.mark.parametrize(
    ("arch", "error", "message"),
    [
        ("", ValueError, "unknown arch ''; choose from 5, 6, 7"),
        (None, TypeError, "NoneType"),
        (True, TypeError, "bool"),
        (dict(dims=(8, 8)), TypeError, "missing .* 'strides'"),
        (dict(dims=(8, 8), strides=(2,), stride=2), TypeError, "unexpected .* 'stride'"),
        (dict(dims=(8, 8), strides=(2, 2)), ValueError, "2 dims and 2 strides"),
        (dict(dims=(8,), strides=()), ValueError, "1 dims and 0 strides"),
        (dict(dims=(8, 0), strides=(2,)), ValueError, "at least 1"),
        (dict(dims=(8, 8.5), strides=(2,)), ValueError, "integers"),
        (dict(POOLS, adaptive_pools=(7, 7)), ValueError, "2 entries for 1"),
        (POOLS, ValueError, "need it .*input_size=None"),
        (dict(POOLS, input_size=0), ValueError, "input_size=0"),
        (dict(POOLS, adaptive_pools=(0,), input_size=224), ValueError, "must be left out"),
    ],
)
def test_what_is_no_arch_says_why(arch, error, message):
    with pytest.raises(error, match=message):
        resolve_arch(arch)
