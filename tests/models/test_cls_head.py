from __future__ import annotations

import logging

import pytest
import torch

from mmvanilla import count_fusable, fuse_model, set_act_lambda
from mmvanilla.models.conv_pair import ConvPair
from tests.helpers import TINY, randomise, relative_difference

pytestmark = pytest.mark.toolbox("mmpretrain")
NUM_CLASSES, CHANNELS = 5, TINY["dims"][-1]


def make_head(num_classes: int = NUM_CLASSES, **arguments):
    from mmvanilla.models.cls_head import VanillaNetClsHead

    return VanillaNetClsHead(num_classes, CHANNELS, **arguments)


def make_classifier(deploy: bool = False, num_classes: int = NUM_CLASSES, **head):
    from mmpretrain.registry import MODELS

    import mmvanilla.cls_head  # noqa: F401

    return MODELS.build(
        dict(
            type="ImageClassifier",
            backbone=dict(type="VanillaNet", arch=TINY, out_indices=(-1,), deploy=deploy),
            head=dict(
                type="VanillaNetClsHead",
                num_classes=num_classes,
                in_channels=CHANNELS,
                deploy=deploy,
                **head,
            ),
        )
    )


def feats() -> tuple[torch.Tensor, ...]:
    return (torch.randn(2, 8, 9, 9), torch.randn(2, CHANNELS, 3, 4))


class TestHead:
    def test_pools_then_classifies_the_last_output(self):
        head = randomise(make_head()).eval()
        x = feats()
        pooled = x[-1].mean(dim=(2, 3))
        first, norm, second = head.conv.first.conv, head.conv.first.norm, head.conv.second.conv
        mid = pooled @ first.weight.flatten(1).T + first.bias
        mid = (mid - norm.running_mean) / (norm.running_var + 1e-6).sqrt()
        mid = mid * norm.weight + norm.bias
        expected = mid @ second.weight.flatten(1).T + second.bias
        torch.testing.assert_close(head(x), expected)
        assert head(x).shape == (2, NUM_CLASSES)

    def test_relu_inside_at_the_start_of_deep_training(self):
        head = randomise(make_head()).eval()
        x = feats()
        set_act_lambda(head, 0.0)
        mid = head.conv.first(x[-1].mean(dim=(2, 3), keepdim=True)).relu()
        torch.testing.assert_close(head(x), head.conv.second(mid).flatten(1))

    def test_dropout_acts_in_training_alone(self):
        head = randomise(make_head(dropout=0.9))
        x = feats()
        head.conv.eval()
        assert not torch.equal(head(x), head(x))
        head.eval()
        assert torch.equal(head(x), head(x))

    def test_fuses_exactly(self):
        head = randomise(make_head(dropout=0.3)).double().eval()
        x = tuple(feat.double() for feat in feats())
        expected = head(x)
        head.switch_to_deploy()
        assert isinstance(head.conv, torch.nn.Conv2d)
        assert relative_difference(expected.detach(), head(x).detach()) < 1e-9
        head.switch_to_deploy()
        assert head.deploy

    def test_its_norm_has_our_eps_whatever_the_kind(self):
        for norm_cfg in (dict(type="BN"), dict(type="SyncBN"), dict(type="BN", momentum=0.2)):
            assert make_head(norm_cfg=norm_cfg).conv.first.norm.eps == 1e-6
        assert make_head(norm_cfg=dict(type="BN", eps=1e-3)).conv.first.norm.eps == 1e-3

    def test_starts_small(self):
        head = make_head()
        head.init_weights()
        for conv in (head.conv.first.conv, head.conv.second.conv):
            assert 0.01 < float(conv.weight.std()) < 0.03
            assert not conv.bias.any()

    def test_without_deep_training_it_is_one_convolution(self):
        head = make_head(deep_training=False)
        assert sorted(head.state_dict()) == ["conv.bias", "conv.weight"]
        again = make_head(deep_training=False)
        again.load_state_dict(head.state_dict())
        assert torch.equal(again.conv.weight, head.conv.weight)

    def test_refuses_pooled_features(self):
        with pytest.raises(ValueError, match="drop the classifier's neck"):
            make_head()((torch.randn(2, CHANNELS),))

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (dict(num_classes=0), "num_classes must be at least 1"),
            (dict(dropout=1.0), "below 1"),
            (dict(dropout=-0.1), "at least 0"),
        ],
    )
    def test_refuses_impossible_arguments(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            make_head(**arguments)

    def test_refuses_misspelt_arguments(self):
        with pytest.raises(TypeError, match="drop_out"):
            make_head(drop_out=0.1)


class TestInAClassifier:
    def test_fuses_with_the_backbone(self):
        model = randomise(make_classifier()).double().eval()
        x = torch.randn(2, 3, 65, 97, dtype=torch.float64)
        expected = model(x)
        num_fused = count_fusable(model)
        fused = fuse_model(model)
        assert num_fused == 2 * len(TINY["dims"]) + 1
        assert not any(isinstance(module, ConvPair) for module in fused.modules())
        assert relative_difference(expected.detach(), fused(x).detach()) < 1e-9
        assert sorted(fused.state_dict()) == sorted(make_classifier(deploy=True).state_dict())

    def test_lies_behind_the_last_block_for_layer_decay(self):
        model = make_classifier()
        depth, num_depths = model.get_layer_depth("head.conv.first.conv.weight")
        assert depth == num_depths - 1 == len(TINY["strides"]) + 1
        assert model.get_layer_depth("backbone.stem.conv.first.conv.weight")[0] == 0

    def test_deploy_form_fuses_what_it_loads(self):
        model = randomise(make_classifier()).eval()
        deploy = make_classifier(deploy=True).eval()
        deploy.load_state_dict(model.state_dict())
        x = torch.randn(2, 3, 64, 64)
        assert relative_difference(model(x).detach(), deploy(x).detach()) < 1e-5

    def test_training_form_refuses_fused_weights(self):
        fused = randomise(make_classifier(deploy=True))
        with pytest.raises(RuntimeError, match="are fused, but the VanillaNet"):
            make_classifier().load_state_dict(fused.state_dict(), strict=False)

    def test_a_head_of_a_pair_reads_a_single_convolution(self):
        features = (torch.randn(2, CHANNELS, 3, 3),)
        head, single = make_head(), make_head(deep_training=False)
        head.load_state_dict(single.state_dict())
        assert torch.equal(head(features), single(features)) and head.deploy

    def test_fine_tuning_to_other_classes_is_left_to_mmpretrain(self):
        from mmengine.runner import load_state_dict

        model = randomise(make_classifier())
        other = make_classifier(num_classes=3)
        own = other.head.conv.second.conv.weight.clone()
        logger = logging.getLogger("mmengine")
        load_state_dict(other, model.state_dict(), strict=False, logger=logger)
        assert torch.equal(
            other.backbone.stem.conv.first.conv.weight, model.backbone.stem.conv.first.conv.weight
        )
        assert torch.equal(other.head.conv.second.conv.weight, own)
        with pytest.raises(RuntimeError, match="size mismatch"):
            other.load_state_dict(model.state_dict())

    @pytest.mark.parametrize("act_lambda", [0.0, 1.0])
    def test_trains(self, act_lambda):
        from mmpretrain.structures import DataSample

        model = make_classifier(loss=dict(type="LabelSmoothLoss", label_smooth_val=0.1))
        model.init_weights()
        set_act_lambda(model, act_lambda)
        samples = [DataSample().set_gt_label(label) for label in (0, 4)]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            losses = model(torch.randn(2, 3, 64, 64), samples, mode="loss")
        losses["loss"].backward()
        assert torch.isfinite(losses["loss"])
        grads = {name: param.grad for name, param in model.named_parameters()}
        assert all(grad is not None and torch.isfinite(grad).all() for grad in grads.values())
        assert grads["backbone.stem.conv.first.conv.weight"].any()
        assert grads["head.conv.first.conv.weight"].any()
