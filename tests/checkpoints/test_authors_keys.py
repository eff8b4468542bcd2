"""The authors' names of weights and ours."""

import pytest
import torch

from mmvanilla import ARCHS, ConvPair, VanillaNet
from mmvanilla.checkpoints.authors_keys import BACKBONE, CLASSIFIER, DETECTOR, convert_authors
from tests.authors_model import authors_model, authors_weights

DIMS = (8, 16, 24)
NECK = {"neck.lateral_convs.0.conv.weight": torch.rand(4, 8, 1, 1)}


def small(**kwargs):
    return VanillaNet(dict(dims=DIMS, strides=(2, 2)), **kwargs)


def below(prefix, weights):
    return {f"{prefix}{key}": tensor for key, tensor in weights.items()}


@pytest.mark.parametrize("deploy", [False, True])
@pytest.mark.parametrize("act_num", [3, 4])
@pytest.mark.parametrize("name", ARCHS)
def test_every_published_shape_is_accounted_for(name, act_num, deploy):
    arch = ARCHS[name]
    with torch.device("meta"):
        theirs = authors_model(arch.dims, act_num, 1000, deploy).state_dict()
        ours = VanillaNet(name, act_num=act_num, deploy=deploy).state_dict()
        own = ConvPair(arch.dims[-1], 1000, 1, last_norm=False, deploy=deploy).state_dict()
    expected = below("backbone.", ours) | below("head.conv.", own)
    converted = convert_authors(theirs)
    assert (converted.dims, converted.act_num) == (arch.dims, act_num)
    assert (converted.num_classes, converted.deploy) == (1000, deploy)
    assert converted.kind == CLASSIFIER
    assert {k: v.shape for k, v in converted.state_dict.items()} == {
        k: v.shape for k, v in expected.items()
    }


def test_a_backbone_loads_and_computes_with_every_weight():
    weights = authors_weights(DIMS)
    ours = small().eval()
    converted = convert_authors(weights, act_lambda=0.3)
    assert converted.kind == BACKBONE and converted.num_classes is None
    ours.load_state_dict(converted.state_dict, strict=True)
    assert ours.stem.conv.act.act_lambda == ours.blocks[1].conv.act.act_lambda == 0.3
    x = torch.rand(1, 3, 32, 32)
    before = ours(x)
    for key in weights:
        if key.endswith("num_batches_tracked"):
            continue
        changed = {**weights, key: weights[key] + 0.5}
        ours.load_state_dict(convert_authors(changed, 0.3).state_dict, strict=True)
        assert not torch.equal(ours(x)[-1], before[-1]), key


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_detector_keeps_everything_beside_the_backbone(prefix):
    weights = {
        key: tensor for key, tensor in authors_weights(DIMS, 4).items() if "num_batches" not in key
    }
    converted = convert_authors(below(prefix, below("backbone.", weights) | NECK))
    assert (converted.kind, converted.act_num) == (DETECTOR, 4)
    others = {k: v for k, v in converted.state_dict.items() if not k.startswith("backbone.")}
    assert list(others) == list(NECK)
    assert torch.equal(others["neck.lateral_convs.0.conv.weight"], next(iter(NECK.values())))
    bare = {k.removeprefix("backbone."): v for k, v in converted.state_dict.items()}
    small(act_num=4).load_state_dict({k: v for k, v in bare.items() if k not in NECK}, strict=True)


def without(*keys):
    return lambda weights: [weights.pop(key) for key in keys]


def having(key, tensor):
    return lambda weights: weights.update({key: tensor})


def with_number(key, number):
    return lambda weights: weights[key].view(-1)[0].fill_(number)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without("stages.1.conv2.1.bias"), "blocks.1.conv.second.norm.bias missing"),
        (without("stem1.0.weight"), "stem1.0.weight is missing"),
        (without("stages.1.act.weight"), "stages.1.conv1.0.weight unexpected"),
        (having("stages.0.extra", torch.zeros(1)), "stages.0.extra unexpected"),
        (having("stages.7.act.weight", torch.zeros(1, 1, 7, 7)), "stages.7.act.weight unexpected"),
        (
            having("stages.0.conv2.0.weight", torch.zeros(16, 9, 1, 1)),
            r"stages.0.conv2.0.weight \(16, 9, 1, 1\) instead of \(16, 8, 1, 1\)",
        ),
        (having("stem2.2.weight", torch.zeros(8, 1, 6, 6)), r"instead of \(8, 1, 7, 7\)"),
        (having("stem2.2.weight", torch.zeros(8)), "is not the weight of a convolution"),
        (having("stages.0.note", "text"), "not tensors: stages.0.note"),
        (having(3, torch.zeros(1)), "3 unexpected"),
        (with_number("stages.0.conv1.0.bias", float("nan")), "conv1.0.bias has values from nan"),
        (with_number("cls1.3.running_var", float("inf")), "running_var has values .* to inf"),
        (lambda weights: weights.clear(), "not VanillaNet weights .* found nothing"),
    ],
)
def test_what_does_not_add_up_is_named(spoil, message):
    weights = authors_weights(DIMS, num_classes=5)
    convert_authors(weights)  # whole, it converts
    spoil(weights)
    with pytest.raises(ValueError, match=message) as caught:
        convert_authors(weights)
    assert "\n" not in str(caught.value)


def test_other_networks_and_converted_weights():
    resnet = {"conv1.weight": torch.zeros(4, 3, 7, 7), "bn1.weight": torch.zeros(4)}
    not_theirs = "not VanillaNet weights .* found conv1.weight, bn1.weight"
    ours = [small(deploy=deploy).state_dict() for deploy in (False, True)]
    for weights, message in [(resnet, not_theirs), *((own, "already have") for own in ours)]:
        for form in (weights, below("backbone.", weights) | NECK):
            with pytest.raises(ValueError, match=message):
                convert_authors(form)
    weights = below("backbone.", authors_weights(DIMS)) | {"neck.bias": torch.tensor([torch.nan])}
    with pytest.raises(ValueError, match="neck.bias has values from nan"):
        convert_authors(weights)
