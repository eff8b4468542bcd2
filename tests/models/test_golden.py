"""Known answers: models of the authors' format with what the authors' implementation computes.

``NAME.official.pth`` and ``NAME.official_deploy.pth`` are files as the authors write them,
``NAME.expected.pth`` has an input and, for three λ, the logits and every layer's output.
"""

import pytest
import torch

from mmvanilla import VanillaNet, fuse_model, set_act_lambda
from mmvanilla.checkpoints.conversion import convert_file
from tests.helpers import DATA

NAMES = ("tiny5", "tiny7_act4", "tiny13", "tiny13_ada")
LAMBDAS = ("0.0", "0.5", "1.0")


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
    checkpoint, found = convert_file(DATA / f"{name}.{file}.pth", target="backbone")
    assert (found.dims, found.act_num) == (tuple(arch["dims"]), expected["act_num"])
    backbone = VanillaNet(arch, act_num=found.act_num, deploy=deploy).eval()
    backbone.load_state_dict(checkpoint["state_dict"], strict=True)
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


def layer_outputs(backbone, x):
    outputs = []
    for layer in (backbone.stem, *backbone.blocks):
        x = layer(x)
        outputs.append(x)
    return outputs


def assert_close(actual, expected, tolerance=1e-5):
    """Within ``tolerance`` of the largest number: float32 rounding."""
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= tolerance * expected.abs().max()


def compared(name, expected, lam):
    """Index and expectation of every layer whose output the file has."""
    feats = expected["outputs"][lam]["feats"]
    pairs = [(layer, feat) for layer, feat in enumerate(feats) if feat is not None]
    assert len(pairs) == (0 if name == "tiny13_ada" else len(expected["arch"]["dims"]))
    return pairs


@pytest.mark.parametrize("lam", LAMBDAS)
@pytest.mark.parametrize("name", [name for name in NAMES if name != "tiny13_ada"])
@torch.no_grad()
def test_features_of_the_training_form(name, lam):
    backbone, expected = build_backbone(name)
    set_act_lambda(backbone, float(lam))
    outputs = layer_outputs(backbone, expected["input"])
    for layer, feat in compared(name, expected, lam):
        assert_close(outputs[layer], feat)
    levels = backbone(expected["input"])
    for level, output in zip(backbone.arch.levels, levels, strict=True):
        assert torch.equal(output, outputs[level])


@pytest.mark.parametrize("how", ["fused here", "fused on load", "fused by the authors"])
@pytest.mark.parametrize("name", [name for name in NAMES if name != "tiny13_ada"])
@torch.no_grad()
def test_features_of_the_deploy_form(name, how):
    if how == "fused here":
        backbone, expected = build_backbone(name)
        backbone = fuse_model(backbone)
    else:
        file = "official" if how == "fused on load" else "official_deploy"
        backbone, expected = build_backbone(name, deploy=True, file=file)
    assert backbone.deploy
    outputs = layer_outputs(backbone, expected["input"])
    for layer, feat in compared(name, expected, "1.0"):
        assert_close(outputs[layer], feat)


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
@pytest.mark.parametrize("how", ["fused here", "fused on load", "fused by the authors"])
@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_logits_of_the_deploy_form(name, how):
    if how == "fused here":
        classifier, expected = build_classifier(name)
        classifier = fuse_model(classifier)
    else:
        file = "official" if how == "fused on load" else "official_deploy"
        classifier, expected = build_classifier(name, deploy=True, file=file)
    assert classifier.backbone.deploy and classifier.head.deploy
    logits = classifier(expected["input"], mode="tensor")
    assert_close(logits, expected["deploy_logits"])
    assert_close(logits, expected["outputs"]["1.0"]["logits"])


@torch.no_grad()
def test_the_averaged_weights_are_taken():
    backbone, expected = build_backbone("tiny5")
    checkpoint = torch.load(DATA / "tiny5.official.pth", weights_only=False)
    assert torch.equal(
        backbone.stem.conv.first.conv.weight, checkpoint["model_ema"]["stem1.0.weight"]
    )
    assert not torch.equal(
        backbone.stem.conv.first.conv.weight, checkpoint["model"]["stem1.0.weight"]
    )
