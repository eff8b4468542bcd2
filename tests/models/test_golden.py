"""Known answers: models of the authors' format with what the authors' implementation computes.

``NAME.official.pth`` and ``NAME.official_deploy.pth`` are files as the authors write them,
``NAME.expected.pth`` has an input and, for three λ, the logits and every layer's output.
"""

import pytest
import torch

from mmvanilla import VanillaNet, fuse_model, set_act_lambda
from mmvanilla.checkpoints.conversion import convert_file
from tests.helpers import DATA, backbone_of

NAMES = ("tiny5", "tiny7_act4", "tiny13", "tiny13_ada")
LAMBDAS = ("0.0", "0.5", "1.0")
HOW = {
    "fused here": {},
    "fused on load": dict(deploy=True),
    "fused by the authors": dict(deploy=True, file="official_deploy"),
}


def load_expected(name):
    expected = torch.load(DATA / f"{name}.expected.pth", weights_only=True)
    arch = dict(expected["arch"])
    if expected["ada_pool"]:
        arch.update(
            adaptive_pools=expected["ada_pool"], stem_stride=3, stem_padding=1, input_size=224
        )
    return expected, arch


def build_backbone(name, deploy=False, file="official"):
    expected, arch = load_expected(name)
    checkpoint, found = convert_file(DATA / f"{name}.{file}.pth")
    assert (found.dims, found.act_num) == (tuple(arch["dims"]), expected["act_num"])
    backbone = VanillaNet(arch, act_num=found.act_num, deploy=deploy).eval()
    backbone.load_state_dict(backbone_of(checkpoint["state_dict"]), strict=True)
    return backbone, expected


def build_classifier(name, deploy=False, file="official"):
    from mmpretrain.models import ImageClassifier

    import mmvanilla.cls_head  # noqa: F401

    expected, arch = load_expected(name)
    checkpoint, found = convert_file(DATA / f"{name}.{file}.pth")
    assert found.num_classes == expected["num_classes"]
    classifier = ImageClassifier(
        backbone=dict(type="VanillaNet", arch=arch, act_num=found.act_num, deploy=deploy),
        head=dict(
            type="VanillaNetClsHead",
            num_classes=found.num_classes,
            in_channels=found.dims[-1],
            deploy=deploy,
        ),
    ).eval()
    classifier.load_state_dict(checkpoint["state_dict"], strict=True)
    return classifier, expected


def assert_close(actual, expected, tolerance=1e-5):
    """Within ``tolerance`` of the largest number: float32 rounding."""
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= tolerance * expected.abs().max()


def assert_layers_match(backbone, expected, lam):
    """Compare every layer's output that the file has."""
    feats = expected["outputs"][lam]["feats"]
    assert len(feats) == len(expected["arch"]["dims"])
    x = expected["input"]
    outputs = []
    for layer, feat in zip((backbone.stem, *backbone.blocks), feats, strict=True):
        x = layer(x)
        outputs.append(x)
        assert_close(x, feat)
    for level, output in zip(backbone.arch.levels, backbone(expected["input"]), strict=True):
        assert torch.equal(output, outputs[level])


@pytest.mark.parametrize("lam", LAMBDAS)
@pytest.mark.parametrize("name", [name for name in NAMES if name != "tiny13_ada"])
@torch.no_grad()
def test_features_of_the_training_form(name, lam):
    backbone, expected = build_backbone(name)
    set_act_lambda(backbone, float(lam))
    assert_layers_match(backbone, expected, lam)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", [name for name in NAMES if name != "tiny13_ada"])
@torch.no_grad()
def test_features_of_the_deploy_form(name, how):
    backbone, expected = build_backbone(name, **HOW[how])
    backbone = backbone if backbone.deploy else fuse_model(backbone)
    assert_layers_match(backbone, expected, "1.0")


@pytest.mark.toolbox("mmpretrain")
@pytest.mark.parametrize("lam", LAMBDAS)
@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_logits_of_the_training_form(name, lam):
    classifier, expected = build_classifier(name)
    set_act_lambda(classifier, float(lam))
    logits = classifier(expected["input"], mode="tensor")
    assert_close(logits, expected["outputs"][lam]["logits"])


@pytest.mark.toolbox("mmpretrain")
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_logits_of_the_deploy_form(name, how):
    classifier, expected = build_classifier(name, **HOW[how])
    classifier = classifier if classifier.head.deploy else fuse_model(classifier)
    assert classifier.backbone.deploy and classifier.head.deploy
    logits = classifier(expected["input"], mode="tensor")
    assert_close(logits, expected["deploy_logits"])
    assert_close(logits, expected["outputs"]["1.0"]["logits"])
