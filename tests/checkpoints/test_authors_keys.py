"""The authors' names of weights and ours."""

import pytest
import torch

from mmvanilla import ARCHS, VanillaNet
from mmvanilla.checkpoints.authors_keys import (
    BACKBONE,
    CLASSIFIER,
    DETECTOR,
    convert_authors,
)
from tests.authors_model import authors_model, authors_weights

DIMS = (8, 16, 24)
NECK = {"neck.lateral_convs.0.conv.weight": torch.rand(4, 8, 1, 1)}


def _small(**kwargs):
    return VanillaNet(dict(dims=DIMS, strides=(2, 2)), **kwargs)


@pytest.mark.parametrize("deploy", [False, True])
@pytest.mark.parametrize("act_num", [3, 4])
@pytest.mark.parametrize("name", ARCHS)
def test_every_published_shape_is_accounted_for(name, act_num, deploy):
    arch = ARCHS[name]
    with torch.device("meta"):
        theirs = authors_model(arch.dims, act_num, 1000, deploy).state_dict()
        ours = VanillaNet(name, act_num=act_num, deploy=deploy)
    converted = convert_authors(theirs)
    assert (converted.dims, converted.act_num) == (arch.dims, act_num)
    assert (converted.num_classes, converted.deploy) == (1000, deploy)
    assert converted.kind == CLASSIFIER
    backbone = {
        key.removeprefix("backbone."): tensor
        for key, tensor in converted.state_dict.items()
        if key.startswith("backbone.")
    }
    expected = ours.state_dict()
    assert {k: v.shape for k, v in backbone.items()} == {k: v.shape for k, v in expected.items()}
    ours.load_state_dict(backbone, strict=True, assign=True)
    head = {key for key in converted.state_dict if not key.startswith("backbone.")}
    assert head == (
        {"head.conv.weight", "head.conv.bias"}
        if deploy
        else {
            *(f"head.conv.{part}.conv.{name}" for part in ("first", "second") for name in _WB),
            *(f"head.conv.first.norm.{name}" for name in _NORM),
            "head.conv.act.act_lambda",
        }
    )


_WB = ("weight", "bias")
_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def test_every_weight_arrives_once():
    hypothesis = pytest.importorskip("hypothesis")
    st = hypothesis.strategies

    @hypothesis.given(
        dims=st.lists(st.integers(1, 6), min_size=2, max_size=5),
        act_num=st.integers(0, 3),
        num_classes=st.none() | st.integers(1, 4),
        deploy=st.booleans(),
    )
    def check(dims, act_num, num_classes, deploy):
        weights = authors_weights(dims, act_num, num_classes, deploy)
        converted = convert_authors(weights)
        assert converted.dims == tuple(dims)
        assert (converted.act_num, converted.deploy) == (act_num, deploy)
        assert converted.num_classes == num_classes
        # Every tensor arrives, itself, exactly once; λ is all that is added.
        given = sorted(id(tensor) for tensor in weights.values())
        arrived = [
            id(tensor)
            for key, tensor in converted.state_dict.items()
            if not key.endswith("act_lambda")
        ]
        assert sorted(arrived) == given

    check()


def test_a_backbone_loads_and_computes_with_every_weight():
    weights = authors_weights(DIMS)
    ours = _small().eval()
    converted = convert_authors(weights)
    assert converted.kind == BACKBONE and converted.num_classes is None
    ours.load_state_dict(converted.state_dict, strict=True)
    x = torch.rand(1, 3, 32, 32)
    before = ours(x)
    for key in weights:
        if key.endswith("num_batches_tracked"):
            continue
        changed = {**weights, key: weights[key] + 0.5}
        ours.load_state_dict(convert_authors(changed).state_dict, strict=True)
        assert not torch.equal(ours(x)[-1], before[-1]), key


def test_distributed_wrapper_and_missing_counters():
    weights = {
        f"module.{key}": tensor
        for key, tensor in authors_weights(DIMS, num_classes=5).items()
        if not key.endswith("num_batches_tracked")
    }
    converted = convert_authors(weights, target=BACKBONE)
    incompatible = _small().load_state_dict(converted.state_dict, strict=True)
    assert incompatible.missing_keys == incompatible.unexpected_keys == []


@pytest.mark.parametrize("with_wrapper", [False, True])
def test_a_detector_keeps_everything_beside_the_backbone(with_wrapper):
    weights = {f"backbone.{key}": tensor for key, tensor in authors_weights(DIMS, 4).items()}
    weights.update(NECK)
    if with_wrapper:
        weights = {f"module.{key}": tensor for key, tensor in weights.items()}
    converted = convert_authors(weights)
    assert (converted.kind, converted.act_num) == (DETECTOR, 4)
    others = {k: v for k, v in converted.state_dict.items() if not k.startswith("backbone.")}
    assert list(others) == list(NECK)
    assert torch.equal(others["neck.lateral_convs.0.conv.weight"], next(iter(NECK.values())))
    bare = convert_authors(weights, target=BACKBONE)
    assert (bare.kind, bare.num_classes) == (BACKBONE, None)
    _small(act_num=4).load_state_dict(bare.state_dict, strict=True)


def _without(*keys):
    return lambda weights: [weights.pop(key) for key in keys]


def _with(key, tensor):
    return lambda weights: weights.update({key: tensor})


def _with_number(key, number):
    def put(weights):
        weights[key].view(-1)[0] = number

    return put


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_without("stages.1.conv2.1.bias"), "1 missing: blocks.1.conv.second.norm.bias"),
        (_without("stem1.0.weight"), "stem1.0.weight is missing"),
        (_without("stages.1.act.weight"), "unexpected: stages.1.conv1.0.weight"),
        (_without("cls2.0.weight"), "cls2.0.weight is missing"),
        (_with("stages.0.extra", torch.zeros(1)), "1 unexpected: stages.0.extra"),
        (
            _with("stages.7.act.weight", torch.zeros(1, 1, 7, 7)),
            "1 unexpected: stages.7.act.weight",
        ),
        (
            _with("stages.0.conv2.0.weight", torch.zeros(16, 9, 1, 1)),
            r"stages.0.conv2.0.weight \(16, 9, 1, 1\) instead of \(16, 8, 1, 1\)",
        ),
        (
            _with("stages.0.act.weight", torch.zeros(16, 1, 9, 9)),
            r"stages.0.act.weight \(16, 1, 9, 9\) instead of \(16, 1, 7, 7\)",
        ),
        (_with("stem2.2.weight", torch.zeros(8, 1, 6, 6)), r"instead of \(8, 1, 7, 7\)"),
        (
            _with("stem2.2.weight", torch.zeros(8)),
            "stem2.2.weight is missing, or is not the weight of a convolution",
        ),
        (_with("stages.0.note", "text"), "not tensors: stages.0.note"),
        (_with(3, torch.zeros(1)), "1 unexpected: 3"),
        (
            _with_number("stages.0.conv1.0.bias", float("nan")),
            "conv1.0.bias has values from nan",
        ),
        (
            _with_number("cls1.3.running_var", float("inf")),
            "running_var has values .* to inf",
        ),
        (
            _without(*authors_weights(DIMS, num_classes=5)),
            "not VanillaNet weights .* found nothing",
        ),
    ],
)
def test_what_does_not_add_up_is_named(spoil, message):
    weights = authors_weights(DIMS, num_classes=5)
    convert_authors(weights)  # whole, it converts
    spoil(weights)
    with pytest.raises(ValueError, match=message) as caught:
        convert_authors(weights)
    assert "\n" not in str(caught.value)


def test_nan_beside_the_backbone_is_named():
    weights = {f"backbone.{key}": tensor for key, tensor in authors_weights(DIMS).items()}
    weights["neck.bias"] = torch.tensor([0.0, float("nan")])
    with pytest.raises(ValueError, match="neck.bias has values from nan"):
        convert_authors(weights)


def test_other_networks_and_converted_weights():
    resnet = {"conv1.weight": torch.zeros(4, 3, 7, 7), "bn1.weight": torch.zeros(4)}
    with pytest.raises(
        ValueError, match="not VanillaNet weights .* found conv1.weight, bn1.weight"
    ):
        convert_authors(resnet)
    detector = {f"backbone.{key}": tensor for key, tensor in resnet.items()} | NECK
    with pytest.raises(ValueError, match="not VanillaNet weights"):
        convert_authors(detector)
    for deploy in (False, True):
        ours = _small(deploy=deploy).state_dict()
        with pytest.raises(ValueError, match="already have mmvanilla.s names"):
            convert_authors(ours)
        with pytest.raises(ValueError, match="already have mmvanilla.s names"):
            convert_authors({f"backbone.{key}": tensor for key, tensor in ours.items()} | NECK)


def test_act_lambda_arrives():
    converted = convert_authors(authors_weights(DIMS), act_lambda=0.3)
    ours = _small()
    ours.load_state_dict(converted.state_dict, strict=True)
    assert ours.stem.conv.act.act_lambda == 0.3
    assert ours.blocks[1].conv.act.act_lambda == 0.3
    deploy = convert_authors(authors_weights(DIMS, deploy=True), act_lambda=0.3)
    assert not any("act_lambda" in key for key in deploy.state_dict)
