"""What users have written down in configs, scripts and links stays where it is."""

import pytest

import mmvanilla

NAMES = (
    "ARCHS Arch ChannelsLastHook ConvPair DeepTrainingHook LayerDecayOptimWrapperConstructor "
    "ReseedHook SqrtLRRunner VanillaNet config_path count_fusable fuse_model get_act_lambda "
    "load_from_vanillanet resolve_arch set_act_lambda"
)


def test_the_package_exports_what_it_did():
    assert set(mmvanilla.__all__) >= set(NAMES.split())
    assert all(hasattr(mmvanilla, name) for name in mmvanilla.__all__)


@pytest.mark.toolbox("mmpretrain")
def test_custom_imports_of_older_configs_work():
    from mmengine.utils import import_modules_from_strings

    _, old = import_modules_from_strings(["mmvanilla", "mmvanilla.cls_head"])
    from mmvanilla.models.cls_head import VanillaNetClsHead

    assert old.VanillaNetClsHead is VanillaNetClsHead
