import pytest
from mmengine.config import Config
from mmengine.optim import AmpOptimWrapper, OptimWrapper

from mmvanilla.apis import mixed_precision
from mmvanilla.apis.mixed_precision import set_mixed_precision
from mmvanilla.apis.runners import build_train_runner

SPELLINGS = ["AmpOptimWrapper", "mmengine.AmpOptimWrapper", AmpOptimWrapper]


@pytest.fixture(params=[False, True], ids=["cpu", "gpu"])
def gpu(request, monkeypatch):
    monkeypatch.setattr(mixed_precision, "_has_device", lambda: request.param)
    return request.param


def config(**wrapper):
    return Config(dict(optim_wrapper=dict(optimizer=dict(type="SGD"), **wrapper)))


def test_without_amp_nothing_is_changed(gpu):
    for cfg in (config(), config(type="OptimWrapper"), config(type=OptimWrapper)):
        for amp in (None, False):
            before = cfg.to_dict()
            set_mixed_precision(cfg, amp)
            assert cfg.to_dict() == before


def test_amp_needs_a_gpu(gpu):
    cfg = config()
    if gpu:
        set_mixed_precision(cfg, True)
        assert cfg.optim_wrapper.type == "AmpOptimWrapper"
        assert cfg.optim_wrapper.loss_scale == "dynamic"
    else:
        with pytest.raises(ValueError, match="--amp needs a GPU, and there is none.*leave --amp"):
            set_mixed_precision(cfg, True)


@pytest.mark.parametrize("kind", SPELLINGS, ids=str)
@pytest.mark.parametrize("amp", [None, True])
def test_of_a_config_that_has_it(gpu, kind, amp):
    cfg = config(type=kind, loss_scale=512.0)
    if gpu:
        set_mixed_precision(cfg, amp)
        assert cfg.optim_wrapper.type == kind and cfg.optim_wrapper.loss_scale == 512.0
    else:
        with pytest.raises(ValueError, match="trains with mixed precision.*add --no-amp"):
            set_mixed_precision(cfg, amp)


@pytest.mark.parametrize("kind", SPELLINGS, ids=str)
def test_no_amp_leaves_what_a_plain_wrapper_takes(gpu, kind):
    cfg = config(type=kind, loss_scale="dynamic", dtype="float16", accumulative_counts=2)
    set_mixed_precision(cfg, False)
    assert cfg.optim_wrapper == dict(
        type="OptimWrapper", optimizer=dict(type="SGD"), accumulative_counts=2
    )


def test_the_refusal_comes_before_anything_is_built(tmp_path, monkeypatch):
    monkeypatch.setattr(mixed_precision, "_has_device", lambda: False)
    path = tmp_path / "config.py"
    path.write_text(
        "model = dict(type='NoSuchModel')\n"
        "train_cfg = dict(max_epochs=1)\n"
        "train_dataloader = dict(dataset=dict(type='CocoDataset', data_root='nowhere/'))\n"
        "optim_wrapper = dict(type='AmpOptimWrapper', optimizer=dict(type='SGD'))\n"
    )
    with pytest.raises(ValueError, match=r"config\.py trains with mixed precision.*--no-amp"):
        build_train_runner(str(path), work_dir=str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
