"""UPerNet with VanillaNet: the shipped configs at a small size, sliding, whole and augmented."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner
from mmengine.utils import import_modules_from_strings

from mmvanilla import count_fusable, fuse_model
from mmvanilla.datasets.shapes import SEG_CLASSES, make_shapes
from tests.helpers import CONFIGS, randomise

pytestmark = pytest.mark.toolbox("mmseg")

NUM_IMAGES = 4


def load(name: str) -> Config:
    cfg = Config.fromfile(CONFIGS / name)
    import_modules_from_strings(**cfg.custom_imports)
    init_default_scope("mmseg")
    return cfg


def narrow(cfg: Config) -> Config:
    """The same model 1/64 as wide, without weights to download."""
    cfg.model.backbone.update(width_mult=1 / 64, init_cfg=None)
    cfg.model.decode_head.update(in_channels=[8, 16, 32, 64], channels=8)
    cfg.model.auxiliary_head.update(in_channels=32, channels=8)
    return cfg


def samples(size: tuple[int, int], count: int = 2) -> dict:
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    data_samples = []
    for _ in range(count):
        sample = SegDataSample()
        sample.gt_sem_seg = PixelData(data=torch.randint(0, 4, (1, *size)))
        meta = dict(img_shape=size, ori_shape=size, pad_shape=size, flip=False)
        sample.set_metainfo(dict(meta, img_path="image.png", flip_direction=None))
        data_samples.append(sample)
    images = [torch.randint(0, 256, (3, *size), dtype=torch.uint8) for _ in range(count)]
    return dict(inputs=images, data_samples=data_samples)


@pytest.mark.parametrize("name", ["upernet_vanillanet.py", "upernet_vanillanet6.py"])
def test_ade20k_configs(name):
    cfg = load(name)
    backbone = cfg.model.backbone
    with torch.device("meta"):
        full = MODELS.build(dict(backbone, init_cfg=None))
    assert list(full.out_channels) == cfg.model.decode_head.in_channels == [512, 1024, 2048, 4096]
    assert (
        full.out_channels[cfg.model.auxiliary_head.in_index] == cfg.model.auxiliary_head.in_channels
    )
    assert cfg.model.decode_head.num_classes == cfg.model.auxiliary_head.num_classes == 150
    arch = "13" if name == "upernet_vanillanet.py" else "6"
    assert backbone.arch == arch
    assert backbone.init_cfg == dict(
        type="Pretrained", checkpoint=f"vanillanet://{arch}", prefix="backbone."
    )
    assert cfg.model.data_preprocessor.size == cfg.model.test_cfg.crop_size == (512, 512)
    # MMSegmentation's ConvNeXt schedule: what its own config says, apart from layer decay.
    theirs = Config.fromfile(
        Path(__import__("mmseg").__file__).parent
        / ".mim/configs/convnext/convnext-base_upernet_8xb2-amp-160k_ade20k-512x512.py"
    )
    assert cfg.param_scheduler == theirs.param_scheduler
    assert cfg.optim_wrapper.optimizer == theirs.optim_wrapper.optimizer
    assert cfg.optim_wrapper.type == theirs.optim_wrapper.type == "AmpOptimWrapper"
    assert cfg.train_cfg == theirs.train_cfg
    assert cfg.train_dataloader == theirs.train_dataloader
    assert cfg.test_dataloader == theirs.test_dataloader
    assert "convnext" not in cfg.pretty_text.lower()


@pytest.mark.parametrize("name", ["upernet_vanillanet.py", "upernet_vanillanet6.py"])
def test_forward_and_backward(name):
    cfg = narrow(load(name))
    cfg.model.data_preprocessor.size = (64, 64)
    model = MODELS.build(cfg.model)
    model.init_weights()
    batch = model.data_preprocessor(samples((64, 64)), True)
    losses = model.loss(**batch)
    assert {"decode.loss_ce", "aux.loss_ce"} <= losses.keys()
    model.parse_losses(losses)[0].backward()
    without = [
        n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()
    ]
    assert not without


@pytest.mark.parametrize("size", [(96, 128), (75, 101)], ids=str)
@pytest.mark.parametrize("mode", ["slide", "whole"])
def test_slide_and_whole_agree_with_fused(mode, size):
    cfg = narrow(load("upernet_vanillanet.py"))
    cfg.model.test_cfg = dict(mode=mode, crop_size=(64, 64), stride=(43, 43))
    cfg.model.data_preprocessor = dict(cfg.model.data_preprocessor, size=None, size_divisor=1)
    model = randomise(MODELS.build(cfg.model)).eval()
    count = count_fusable(model)
    fused = fuse_model(model)
    assert count == 24  # 12 convolutions and 12 activations
    batch = model.data_preprocessor(samples(size, count=1), False)
    with torch.no_grad():
        before, after = (net.predict(**batch)[0].seg_logits.data for net in (model, fused))
    assert before.shape == (150, *size)
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-4 * float(before.abs().max()))


def test_slide_differs_from_whole():
    """The two modes are not the same code path by accident."""
    cfg = narrow(load("upernet_vanillanet.py"))
    model = randomise(MODELS.build(cfg.model)).eval()
    batch = dict(inputs=torch.rand(1, 3, 96, 128))
    metas = [dict(img_shape=(96, 128), ori_shape=(96, 128), pad_shape=(96, 128))]
    with torch.no_grad():
        model.test_cfg = _test_cfg("whole")
        whole = model.inference(batch["inputs"], metas)
        model.test_cfg = _test_cfg("slide")
        slide = model.inference(batch["inputs"], metas)
    assert whole.shape == slide.shape == (1, 150, 96, 128)
    assert not torch.allclose(whole, slide, rtol=1e-2)


def _test_cfg(mode: str):
    return Config(dict(test_cfg=dict(mode=mode, crop_size=(64, 64), stride=(43, 43)))).test_cfg


@pytest.fixture(scope="module")
def shapes_root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("shapes")
    make_shapes(root, ["ade20k"], num_train=NUM_IMAGES, num_val=NUM_IMAGES, image_size=64)
    return root / "ade20k"


@pytest.fixture
def shapes_cfg(shapes_root, tmp_path) -> Config:
    cfg = narrow(load("shapes/upernet_vanillanet_shapes.py"))
    for name in ("train_dataloader", "val_dataloader", "test_dataloader"):
        cfg[name].dataset.data_root = str(shapes_root)
        cfg[name].update(num_workers=0, persistent_workers=False, batch_size=1)
    cfg.train_dataloader.batch_size = 2
    cfg.model.data_preprocessor.size = (64, 64)
    cfg.train_cfg.update(max_iters=4, val_interval=4)
    cfg.default_hooks.checkpoint.interval = 4
    cfg.work_dir = str(tmp_path)
    return cfg


def test_shapes_config_names_the_classes_of_the_data():
    cfg = load("shapes/upernet_vanillanet_shapes.py")
    assert cfg.metainfo.classes == SEG_CLASSES
    assert cfg.model.decode_head.num_classes == len(SEG_CLASSES)


def test_shapes_config_trains_and_tests_with_tta(shapes_cfg):
    metrics = Runner.from_cfg(shapes_cfg).train()
    weights = Path(shapes_cfg.work_dir, "iter_4.pth")
    assert weights.is_file()

    def tested(**changes) -> dict[str, float]:
        cfg = copy.deepcopy(shapes_cfg)
        for key, value in dict(changes, load_from=str(weights)).items():
            cfg[key] = value  # update() would merge the models
        runner = Runner.from_cfg(cfg)
        assert len(runner.test_dataloader.dataset) == NUM_IMAGES
        return runner.test()

    plain = tested()
    assert 0 < plain["mIoU"] <= 100
    assert metrics is not None
    fused = copy.deepcopy(shapes_cfg.model)
    fused.backbone.deploy = True
    assert tested(model=fused)["mIoU"] == pytest.approx(plain["mIoU"], abs=0.05)
    # Flip and three scales: six views an image.
    dataloader = copy.deepcopy(shapes_cfg.test_dataloader)
    dataloader.dataset.pipeline = shapes_cfg.tta_pipeline
    wrapper = dict(shapes_cfg.tta_model, module=shapes_cfg.model)
    averaged = tested(model=wrapper, test_dataloader=dataloader)
    assert 0 < averaged["mIoU"] <= 100
