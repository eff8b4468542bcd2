"""A classifier with a teacher: two losses, and a checkpoint like any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.registry import MODELS
from torch.nn import functional

from mmvanilla.apis.config import load_config
from mmvanilla.apis.model import build_model, load_model
from mmvanilla.apis.runners import build_test_runner, build_train_runner
from tests.fashion_files import write_fashion_mnist
from tests.helpers import CONFIGS, randomise, release

pytestmark = pytest.mark.toolbox("mmpretrain")
CONFIG = str(CONFIGS / "small" / "vanillanet_fashion_mnist_distilled.py")
TEACHER = str(CONFIGS / "small" / "resnet_fashion_mnist.py")
ARC_FACE = dict(type="mmpretrain.ArcFaceClsHead", num_classes=9, in_channels=9)
CONFORMER = dict(type="mmpretrain.ConformerHead", num_classes=9, in_channels=[9, 9])
PAIRS = {"model.backbone.deep_training": True, "model.head.deep_training": True}


@pytest.fixture
def options(tmp_path, monkeypatch) -> dict[str, Any]:
    """A teacher with random weights, a few images, and a short training."""
    monkeypatch.chdir(tmp_path)
    write_fashion_mnist(Path("data/fashion_mnist"), per_class=2, test_per_class=1, compressed=False)
    torch.save(randomise(build_model(load_config(TEACHER))).state_dict(), "teacher.pth")
    return {
        "model.teacher": dict(config=TEACHER, checkpoint="teacher.pth"),
        "train_dataloader.batch_size": 10,
        "train_cfg.max_epochs": 3,
        "param_scheduler": None,
        "default_hooks.checkpoint": dict(interval=1, max_keep_ckpts=-1),
    }


def build(options: dict[str, Any], **model: Any) -> Any:
    changes = {f"model.{name}": value for name, value in model.items()}
    return build_model(load_config(CONFIG, {**options, **changes}))


def samples(count: int) -> list[Any]:
    from mmpretrain.structures import DataSample

    return [DataSample().set_gt_label(index) for index in range(count)]


def test_the_loss_is_that_of_the_labels_and_the_divergence_from_the_teacher(options):
    model = build(options, temperature=3.0, weight=0.5)
    model.init_weights()
    images = torch.randn(4, 1, 28, 28)
    teacher, _ = load_model(load_config(TEACHER), "teacher.pth")
    model.eval()  # so that no statistics change between the calls
    losses = model.loss(images, samples(4))
    own, theirs = model(images), teacher(images).detach()
    probabilities = functional.softmax(theirs / 3, 1)
    logs = probabilities.log() - functional.log_softmax(own / 3, 1)
    expected = 0.5 * 9 * (probabilities * logs).sum() / 4
    torch.testing.assert_close(losses["loss_teacher"], expected)
    labels = model.head.loss(model.extract_feat(images), samples(4))["loss"]
    torch.testing.assert_close(losses["loss"], labels)
    assert losses.keys() == {"loss", "loss_teacher"}


def test_the_teacher_is_no_part_of_the_model_and_stays_as_it_is(options):
    model = build(options)
    model.init_weights()
    plain = build_model(load_config(str(CONFIGS / "small" / "vanillanet_fashion_mnist.py")))
    assert model.state_dict().keys() == plain.state_dict().keys()
    assert [*dict(model.named_modules())] == [*dict(plain.named_modules())]
    before = {key: value.clone() for key, value in model._load_teacher().state_dict().items()}
    optimizer = torch.optim.SGD(model.train().parameters(), lr=0.1)
    sum(model.loss(torch.randn(4, 1, 28, 28), samples(4)).values()).backward()
    optimizer.step()
    teacher = model._load_teacher()
    assert not teacher.training and all(each.grad is None for each in teacher.parameters())
    assert all(torch.equal(before[key], value) for key, value in teacher.state_dict().items())
    model.to(torch.float64)
    assert model.loss(torch.randn(4, 1, 28, 28).double(), samples(4))["loss"].isfinite()


def train(options: dict[str, Any], folder: str, resume: str | None = None) -> Any:
    runner = build_train_runner(CONFIG, folder, cfg_options=options, resume=resume)
    runner.train()
    release(runner)
    return torch.load(f"{folder}/epoch_3.pth", weights_only=True)


def test_with_merging_and_averages_it_resumes_and_is_tested_without_the_teacher(options):
    hooks = [dict(type="DeepTrainingHook", decay_epochs=2, merge=True), dict(type="EMAHook")]
    options.update(PAIRS, custom_hooks=hooks)
    end = train(options, "whole")
    plain = build_model(load_config(str(CONFIGS / "small" / "vanillanet_fashion_mnist.py")))
    assert end["state_dict"].keys() == plain.state_dict().keys()
    scalars = next(Path("whole").glob("*/vis_data/scalars.json")).read_text()
    assert '"loss_teacher"' in scalars
    resumed = train(options, "resumed", "whole/epoch_1.pth")
    for part in ("state_dict", "ema_state_dict"):
        assert all(torch.equal(end[part][key], value) for key, value in resumed[part].items())
    Path("teacher.pth").unlink()
    tester = build_test_runner(CONFIG, "whole/epoch_3.pth", cfg_options=options)
    assert "accuracy/top1" in tester.test()
    release(tester)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (dict(teacher=dict(config=TEACHER)), TypeError, "dict of config and checkpoint"),
        (dict(head=ARC_FACE), TypeError, "a loss or predictions of its own"),
        (dict(head=CONFORMER), TypeError, "a loss or predictions of its own"),
        (dict(temperature=0), ValueError, "temperature must be above 0"),
        (dict(weight=-1), ValueError, "weight at least 0"),
    ],
)
def test_arguments_are_refused(options, changes, error, message):
    model = {**load_config(CONFIG).model, "teacher": options["model.teacher"], **changes}
    with pytest.raises(error, match=message):
        MODELS.build(model)


def test_a_teacher_that_does_not_fit_is_refused_before_training(options):
    with pytest.raises(FileNotFoundError):
        build(options, teacher=dict(config=TEACHER, checkpoint="nowhere.pth")).init_weights()
    with pytest.raises(ValueError, match="images of another kind"):
        build({**options, "data_preprocessor.mean": [1.0]}).init_weights()
    model = build(options, **{"head.num_classes": 3})
    with pytest.raises(ValueError, match="both must know the same classes"):
        model.loss(torch.randn(2, 1, 28, 28), samples(2))
