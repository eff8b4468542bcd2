"""Imports that other tools need, and types that nobody registers."""

import pytest
from mmengine.config import Config

import mmvanilla
from mmvanilla.checks.findings import FAULT, OK, WARNING
from mmvanilla.checks.types import check_imports, check_types, type_name

BACKBONE = dict(type="VanillaNet", arch="6")


def cfg(imports=None, **entries):
    named = {} if imports is None else dict(custom_imports=dict(imports=imports))
    return Config(dict(model=dict(type="ImageClassifier", backbone=BACKBONE), **named, **entries))


@pytest.mark.parametrize(
    ("imports", "status"),
    [
        (None, FAULT),
        ([], FAULT),
        ("mmvanilla", OK),
        (["mmvanilla"], OK),
        (["mmvanilla.models.vanillanet"], OK),
        (["other", "mmvanilla"], OK),
        (["my_project"], WARNING),
        (["mmvanilla_of_another"], WARNING),
    ],
)
def test_mmvanilla_must_be_named(imports, status):
    (found,) = check_imports(cfg(imports))
    assert found.status == status and not found.certain
    if status != OK:
        named = [imports] if isinstance(imports, str) else imports or []
        assert all(repr(name) in found.remedy for name in [*named, "mmvanilla"])


def test_the_head_needs_its_own_module():
    config = cfg(["mmvanilla"])
    config.model.head = dict(type="mmpretrain.VanillaNetClsHead")
    (found,) = check_imports(config)
    assert found.status != OK and "'mmvanilla.cls_head'" in found.remedy
    config.custom_imports.imports.append("mmvanilla.models.cls_head")
    assert check_imports(config)[0].status == OK


def test_types_that_need_a_toolbox_need_their_own_module():
    config = cfg(["mmvanilla"], model=dict(head=dict(type="VanillaNetClsHead")))
    config.tta_model = dict(type="MaskTTAModel")
    (found,) = check_imports(config)
    assert found.status != OK
    modules = ["mmvanilla.cls_head", "mmvanilla.models.mask_tta"]
    assert all(module in found.remedy for module in modules)
    config.custom_imports.imports.extend(modules)
    assert check_imports(config)[0].status == OK


def test_a_type_of_ours_comes_with_its_line():
    hook = dict(type="ExportedModel")  # not a hook, so that it is not registered there
    (found,) = check_types(Config(dict(custom_hooks=[hook])))
    assert "it is one of mmvanilla's: add custom_imports" in found.remedy
    assert "'mmvanilla.deploy.exported_model'" in found.remedy


@pytest.mark.parametrize(
    "entries",
    [
        dict(custom_hooks=[dict(type="DeepTrainingHook", decay_epochs=1)]),
        dict(optim_wrapper=dict(constructor="LayerDecayOptimWrapperConstructor")),
        dict(load_from="vanillanet://13"),
        dict(runner_type="SqrtLRRunner"),
    ],
)
def test_what_is_ours_beside_the_model(entries):
    config = Config(dict(model=dict(type="ResNet"), **entries))
    assert check_imports(config)[0].status == FAULT
    assert check_imports(Config(dict(model=dict(type="ResNet")))) == []


def test_classes_import_themselves():
    lazy = Config(dict(model=dict(type=dict, backbone=dict(type=mmvanilla.VanillaNet))))
    assert check_imports(lazy) == []


def test_types():
    config = Config(
        dict(
            model=dict(type="Anything"),
            custom_hooks=[dict(type="DeepTraningHook", decay_epochs=1)],
            optim_wrapper=dict(type="OptimWrapper", optimizer=dict(type="AdamWW", lr=1)),
            param_scheduler=[dict(type="LinearLR")],
        )
    )
    found = check_types(config)
    assert [item.status for item in found] == [FAULT, FAULT]
    assert "did you mean 'DeepTrainingHook'" in found[0].remedy
    assert "optim_wrapper.optimizer: unknown type 'AdamWW'" in found[1].text
    config.custom_hooks[0].type = mmvanilla.DeepTrainingHook
    config.optim_wrapper.optimizer.type = "AdamW"
    assert [item.status for item in check_types(config)] == [OK]


def test_names_of_types():
    assert type_name("mmdet.RTMDet") == type_name("RTMDet") == "RTMDet"
    assert type_name(mmvanilla.VanillaNet) == "VanillaNet"
