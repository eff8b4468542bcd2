"""The sizes of images that a config trains with."""

import pytest
from mmengine.config import Config
from torch import nn

from mmvanilla import VanillaNet
from mmvanilla.checks.sizes import LARGE, sizes_to_check, usual_size


def cfg(*pipeline, scope="mmdet", **preprocessor):
    loader = dict(dataset=dict(type="RepeatDataset", dataset=dict(pipeline=list(pipeline))))
    model = dict(type="Anything", data_preprocessor=preprocessor)
    return Config(dict(default_scope=scope, model=model, train_dataloader=loader))


@pytest.mark.parametrize(
    ("config", "size"),
    [
        (cfg(dict(type="Resize", scale=(1333, 800)), dict(type="Flip")), (800, 1333)),
        (cfg(dict(type="Resize", scale=(1333, 800)), pad_size_divisor=32), (800, 1344)),
        (cfg(dict(type="R", scales=[(1333, 640), (1333, 480)])), (480, 1333)),
        (cfg(dict(scale=(9, 9)), dict(type="RandomCrop", crop_size=(512, 256))), (512, 256)),
        (cfg(dict(type="RandomResizedCrop", scale=224), scope="mmpretrain"), (224, 224)),
        (cfg(dict(type="Flip", prob=0.5), size=(512, 1024)), (512, 1024)),
        (cfg(dict(type="Resize", scale=(0.5, 2.0))), (800, 1280)),
        (cfg(scope="mmseg"), (512, 512)),
        (Config(dict(model=dict(type="Anything"))), (224, 224)),
    ],
)
def test_usual_sizes(config, size):
    assert usual_size(config) == size


def test_one_size_or_two():
    assert sizes_to_check(cfg(), nn.Identity()) == [(800, 1280), LARGE]
    adaptive = dict(dims=(8, 16), strides=(2,), adaptive_pools=(3,), input_size=26)
    assert sizes_to_check(cfg(), nn.Sequential(VanillaNet(adaptive))) == [(26, 26)]
