"""The head of a classifier: a pair of 1×1 convolutions behind the backbone."""

from __future__ import annotations

import pytest
import torch
from mmengine.registry import MODELS
from mmengine.runner.checkpoint import load_state_dict

from mmvanilla import fuse_model
from tests.helpers import TINY, randomise, relative_difference

pytestmark = pytest.mark.toolbox("mmpretrain")
NUM_CLASSES, CHANNELS = 5, TINY["dims"][-1]


def make_head(num_classes: int = NUM_CLASSES, **arguments):
    from mmvanilla.models.cls_head import VanillaNetClsHead

    return VanillaNetClsHead(num_classes, CHANNELS, **arguments)


def make_classifier(deploy: bool = False, num_classes: int = NUM_CLASSES, **head):
    import mmvanilla.cls_head  # noqa: F401

    head.update(type="VanillaNetClsHead", num_classes=num_classes, in_channels=CHANNELS)
    backbone = dict(type="VanillaNet", arch=TINY, out_indices=(-1,), deploy=deploy)
    return MODELS.build(
        dict(type="mmpretrain.ImageClassifier", backbone=backbone, head=dict(head, deploy=deploy))
    )


def feats() -> tuple[torch.Tensor, ...]:
    return (torch.randn(2, 8, 9, 9), torch.randn(2, CHANNELS, 3, 4))


def test_weights_of_another_number_of_classes_still_load_the_backbone():
    model, other = make_classifier(num_classes=3), make_classifier()
    load_state_dict(model, other.state_dict())  # which logs what does not fit
    weights = [each.backbone.stem.conv.first.conv.weight for each in (model, other)]
    assert torch.equal(*weights)


def test_dropout_acts_in_training_alone_and_the_rest_fuses_exactly():
    head = randomise(make_head(dropout=0.9)).double()
    x = tuple(feat.double() for feat in feats())
    head.conv.eval()
    assert not torch.equal(head(x), head(x))
    head.eval()
    expected = head(x)
    for _ in range(2):
        head.switch_to_deploy()
        assert head.deploy and isinstance(head.conv, torch.nn.Conv2d)
        assert relative_difference(expected.detach(), head(x).detach()) < 1e-9


def test_without_deep_training_it_is_one_convolution():
    assert sorted(make_head(deep_training=False).state_dict()) == ["conv.bias", "conv.weight"]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (dict(num_classes=0), "num_classes must be at least 1"),
        (dict(dropout=-0.1), "between 0 and 1"),
        (dict(drop_out=0.1), "drop_out"),
    ],
)
def test_impossible_arguments_and_pooled_features_are_refused(arguments, error):
    with pytest.raises((ValueError, TypeError), match=error):
        make_head(**arguments)
    with pytest.raises(ValueError, match="drop the classifier's neck"):
        make_head()((torch.randn(2, CHANNELS),))


@torch.no_grad()
def test_fused_weights_are_refused_by_a_pair_and_taken_by_one_that_never_was():
    fused = fuse_model(make_classifier().eval())
    with pytest.raises(RuntimeError, match="are fused, but the VanillaNet"):
        make_classifier().load_state_dict(fused.state_dict(), strict=False)
    # One convolution is what a head without a pair has, too.
    head, single = make_head(), make_head(deep_training=False)
    head.load_state_dict(single.state_dict())
    pooled = feats()
    assert head.deploy and torch.equal(head(pooled), single(pooled))
