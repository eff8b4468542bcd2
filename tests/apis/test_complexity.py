"""Counts against mmengine's counter, and by hand."""

import pytest
import torch
from mmengine.config import Config

from mmvanilla import VanillaNet
from mmvanilla.apis.complexity import count_config, count_macs, measure_complexity
from mmvanilla.apis.config import load_config
from mmvanilla.apis.model import build_on_meta
from tests.helpers import ROOT


def config(backbone, channels, **parts):
    head = dict(type="VanillaNetClsHead", num_classes=1000, in_channels=channels)
    parts = dict(type="ImageClassifier", backbone=backbone) | dict(head=head) | parts
    return Config(dict(default_scope="mmpretrain", model=parts))


@pytest.mark.toolbox("mmdet")
def test_parts_that_take_more_than_maps_are_named(tmp_path):
    (tmp_path / "detr.py").write_text('_base_ = ["mmdet::detr/detr_r50_8xb2-150e_coco.py"]')
    counts, _ = count_config(load_config(str(tmp_path / "detr.py")), (64, 64), ("training",))
    names = [f"{name}, MACs unknown" for name in ("bbox_head", "encoder", "decoder")]
    assert {count.part for count in counts if not count.macs} > {*names}
    assert counts[-1].part == "whole model, known MACs"


def test_macs_are_those_of_the_convolutions():
    net = VanillaNet(dict(dims=(8, 16, 24), strides=(2, 2)), deploy=True).eval()
    # The stem and two pointwise convolutions, and a depthwise 7x7 behind each.
    stem = 16 * 24 * (3 * 16 * 8 + 8 * 49)
    blocks = 16 * 24 * 8 * 16 + 8 * 12 * 16 * 49 + 8 * 12 * 16 * 24 + 4 * 6 * 24 * 49
    assert measure_complexity(net, (64, 96)).macs == stem + blocks


def test_deformable_convolutions_count_as_plain_ones():
    ops = pytest.importorskip("torchvision.ops")
    layer = ops.DeformConv2d(8, 16, 3, padding=1)
    offsets = torch.zeros(1, 18, 6, 5)
    assert count_macs(layer, torch.zeros(1, 8, 6, 5), offsets) == 6 * 5 * 16 * 8 * 9


@pytest.mark.toolbox("mmdet")
def test_a_head_that_others_share_runs_for_each_region(tmp_path):
    base = "mmdet::_base_/models/mask-rcnn_r50-caffe-c4.py"
    (tmp_path / "c4.py").write_text(f"_base_ = ['{base}']\ndefault_scope = 'mmdet'")
    cfg = load_config(str(tmp_path / "c4.py"))
    counts, _ = count_config(cfg, (128, 128), ("training",))
    found = {count.part: count.macs for count in counts}
    heads, regions = build_on_meta(cfg).eval().roi_head, torch.zeros(100, 1024, 14, 14).to("meta")
    shared = count_macs(heads.shared_head, regions)
    own = count_macs(heads.mask_head, heads.shared_head(regions))
    assert found["mask_head, 100 regions"] == shared + own
    assert found["shared_head"] == 0 and "whole model" in found


@pytest.mark.toolbox("mmpretrain")
def test_networks_that_read_tensors_when_built_are_counted_too():
    backbone = dict(type="ResNet", depth=18, drop_path_rate=0.1)
    head = dict(type="LinearClsHead", num_classes=1000, in_channels=512)
    cfg = config(backbone, 512, neck=dict(type="GlobalAveragePooling"), head=head)
    (count,), _ = count_config(cfg, forms=("training",))
    assert count.params == 11_689_512  # as torchvision and MMPretrain's model zoo have it
    assert count.macs / 1e9 == pytest.approx(1.82, abs=0.01)


@pytest.mark.toolbox("mmdet")
@pytest.mark.parametrize("name", ["maskrcnn_vanillanet.py", "retinanet_vanillanet.py"])
def test_detectors_count_their_heads(name):
    counts, size = count_config(load_config(str(ROOT / "configs" / name)), forms=("deploy",))
    assert size == (800, 1280)
    *parts, whole = counts
    assert whole.part == "whole model"
    assert whole.macs == sum(part.macs for part in parts)
    assert whole.params == sum(part.params for part in parts)
    assert all(part.macs > 0 and part.params > 0 for part in parts)
    names = [part.part for part in parts]
    if name.startswith("maskrcnn"):
        assert names[1:] == ["rpn_head", "bbox_head, 1000 regions", "mask_head, 100 regions"]
    else:
        assert names[1:] == ["bbox_head"]


@pytest.mark.toolbox("mmpretrain")
def test_tool(run_tool):
    status, shown = run_tool("get_flops", "imagenet/vanillanet5_in1k.py", "--deploy")
    assert status == 0 and "15.52" in shown.out and "5.16" in shown.out
    assert "training" not in shown.out
    # A small network for grey images: million parameters and thousand million MACs.
    config = "small/vanillanet_fashion_mnist"
    _, shown = run_tool("get_flops", config, "--deploy", "--shape", "28", "28")
    assert "0.17" in shown.out and "0.011" in shown.out
    status, shown = run_tool("get_flops", config, "--shape", "0", "224")
    assert status == 1 and shown.err.startswith("error: shape: height and width must be at least 1")
