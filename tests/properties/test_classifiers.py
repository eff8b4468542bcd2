"""Random classifiers with VanillaNet's head: fused, loaded or converted, they answer the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from mmvanilla import fuse_model
from mmvanilla.checkpoints.authors_keys import convert_authors, our_name
from mmvanilla.utils.numerics import relative_difference
from tests.authors_model import authors_weights
from tests.helpers import randomise

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies
pytestmark = pytest.mark.toolbox("mmpretrain")


@st.composite
def classifiers(draw: Any) -> dict[str, Any]:
    """The parts of a classifier: variant, activation, norm, classes, deep training or not."""
    blocks = draw(st.integers(1, 4))
    dims = tuple(draw(st.sampled_from((8, 16, 24))) for _ in range(blocks + 1))
    strides = tuple(draw(st.sampled_from((1, 2))) for _ in range(blocks))
    deep_training = draw(st.booleans())
    return dict(
        backbone=dict(
            type="VanillaNet",
            arch=dict(dims=dims, strides=strides),
            out_indices=(-1,),
            act_num=draw(st.integers(0, 4)),
            act_cfg=dict(type=draw(st.sampled_from(("ReLU", "GELU", "LeakyReLU")))),
            deep_training=deep_training,
        ),
        head=dict(
            type="VanillaNetClsHead",
            num_classes=draw(st.integers(1, 12)),
            in_channels=dims[-1],
            norm_cfg=dict(type=draw(st.sampled_from(("BN", "SyncBN")))),
            deep_training=deep_training,
        ),
    )


def build(cfg: dict[str, Any], deploy: bool, seed: int) -> nn.Module:
    """A classifier in eval mode with random weights and statistics."""
    from mmpretrain.models import ImageClassifier

    import mmvanilla.cls_head  # noqa: F401

    model = ImageClassifier(**{part: dict(cfg[part], deploy=deploy) for part in cfg})
    return randomise(model, seed).eval().double()


@hypothesis.settings(max_examples=6)
@hypothesis.given(cfg=classifiers(), seed=st.integers(0, 2**31))
@torch.no_grad()
def test_every_form_of_a_classifier_answers_the_same(cfg, seed):
    torch.manual_seed(seed)
    model = build(cfg, deploy=False, seed=seed)
    weights, backbone = model.state_dict(), cfg["backbone"]
    sources = {"loaded": weights}
    if backbone["deep_training"]:
        dims, classes = backbone["arch"]["dims"], cfg["head"]["num_classes"]
        names = {key: our_name(key) for key in authors_weights(dims, backbone["act_num"], classes)}
        theirs = {
            key: weights.get(name, weights.get(f"backbone.{name}")) for key, name in names.items()
        }
        sources["converted"] = convert_authors(theirs).state_dict
    forms = {"fused": fuse_model(model)}
    for source, state_dict in sources.items():
        for deploy in (True, False):
            forms[f"{source}, deploy={deploy}"] = other = build(cfg, deploy, seed + 1)
            other.load_state_dict(state_dict)
    images = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    expected = model(images)
    for form, other in forms.items():
        difference = relative_difference(expected, other(images))
        assert difference <= 1e-9, f"{form}: {difference:.2g}"
