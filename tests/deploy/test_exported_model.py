"""`mmvanilla test CONFIG MODEL.onnx`: the exported model under the metrics of its config."""

import pickle
import runpy
import sys

import numpy as np
import pytest
import torch

pytest.importorskip("onnxruntime")
pytest.importorskip("mmvanilla.cls_head")

from mmvanilla.apis.config import load_config  # noqa: E402
from mmvanilla.apis.model import build_model  # noqa: E402
from mmvanilla.datasets.shapes import make_shapes  # noqa: E402
from mmvanilla.deploy.exported_model import ExportedModel  # noqa: E402
from mmvanilla.deploy.exporting import export_model  # noqa: E402
from mmvanilla.deploy.formats import find_format  # noqa: E402
from mmvanilla.deploy.runner_metadata import describe_for_runner  # noqa: E402
from tests.helpers import CONFIGS, ROOT, randomise  # noqa: E402

SINGLE = [
    f"{split}_dataloader.{key}={value}"
    for split in ("val", "test")
    for key, value in (("num_workers", 0), ("persistent_workers", False))
]


@pytest.fixture(scope="module", params=["vanillanet_shapes", "upernet_vanillanet_shapes"])
def exported(request, tmp_path_factory):
    """A folder with data, a checkpoint and the same model exported; the config's path."""
    pytest.importorskip("mmseg.models" if "upernet" in request.param else "mmpretrain.models")
    folder = tmp_path_factory.mktemp("exported")
    layout = "ade20k" if "upernet" in request.param else "imagenet"
    make_shapes(folder / "data" / "shapes", layouts=(layout,), num_train=6, num_val=6)
    config = str(CONFIGS / "shapes" / f"{request.param}.py")
    cfg = load_config(config)
    torch.manual_seed(0)
    model = randomise(build_model(cfg)).eval()
    torch.save(dict(state_dict=model.state_dict()), folder / "weights.pth")
    described = describe_for_runner(model, cfg, {})
    for name in ("net.onnx", "net.xml"):
        if name.endswith(".xml"):
            try:
                import openvino  # noqa: F401
            except ImportError:
                continue
        path = folder / name
        export_model(model, path, find_format(path), size=(64, 64), metadata=described)
    return folder, config


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["test.py", *map(str, arguments)])
    runpy.run_path(str(ROOT / "tools" / "test.py"), run_name="__main__")


def predictions(monkeypatch, config, model, out):
    run(
        monkeypatch, config, model, "--work-dir", out.parent, "--out", out, "--cfg-options", *SINGLE
    )
    with out.open("rb") as file:
        return pickle.load(file)


@pytest.mark.parametrize("name", ["net.onnx", "net.xml"])
def test_it_predicts_what_the_checkpoint_predicts(exported, name, monkeypatch, tmp_path):
    folder, config = exported
    if not (folder / name).exists():
        pytest.skip("OpenVINO is not installed")
    monkeypatch.chdir(folder)
    expected = predictions(monkeypatch, config, "weights.pth", tmp_path / "torch.pkl")
    found = predictions(monkeypatch, config, name, tmp_path / "exported.pkl")
    assert len(found) == len(expected) == 6
    for one, other in zip(expected, found, strict=True):
        if "pred_score" in one:
            torch.testing.assert_close(other["pred_score"], one["pred_score"], rtol=1e-3, atol=1e-4)
            assert torch.equal(other["pred_label"].flatten(), one["pred_label"].flatten())
        else:
            maps = [sample["pred_sem_seg"]["data"] for sample in (one, other)]
            assert maps[0].shape == maps[1].shape
            assert (maps[0] == maps[1]).float().mean() > 0.999


def test_what_it_cannot_do_is_refused(exported, monkeypatch, capsys):
    folder, config = exported
    monkeypatch.chdir(folder)
    for arguments, message in {
        ("net.onnx", "--tta"): "--tta is for models in PyTorch",
        ("net.onnx", "--channels-last"): "--channels-last is for models in PyTorch",
        ("net.onnx", "--compile"): "--compile is for models in PyTorch",
        ("other.onnx",): "no model at other.onnx",
    }.items():
        with pytest.raises(SystemExit) as failure:
            run(monkeypatch, config, *arguments)
        assert failure.value.code == 1
        assert message in capsys.readouterr().err.splitlines()[-1]


class Predicts:
    """Stands for a detector that was exported."""

    task = "detection"

    def read(self, path):
        assert path == "image.png"
        return np.zeros((8, 8, 3), np.uint8)

    def __call__(self, image):
        mask = np.zeros((1, 8, 8), bool)
        mask[0, 2:6, 2:6] = True
        return dict(
            labels=np.array([1]),
            scores=np.array([0.5], np.float32),
            bboxes=np.array([[2, 2, 6, 6]], np.float32),
            masks=mask,
        )


def test_detections_become_instances_of_the_toolbox():
    structures = pytest.importorskip("mmdet.structures")
    model = ExportedModel.__new__(ExportedModel)
    torch.nn.Module.__init__(model)
    model.predictor = Predicts()
    sample = structures.DetDataSample(metainfo=dict(img_path="image.png"))
    (found,) = model.forward(None, [sample])
    instances = found.pred_instances
    assert instances.labels.tolist() == [1] and instances.scores.tolist() == [0.5]
    assert instances.bboxes.tolist() == [[2, 2, 6, 6]] and int(instances.masks.sum()) == 16
    with pytest.raises(ValueError, match="gives no img_path"):
        model.forward(None, [structures.DetDataSample()])
    with pytest.raises(ValueError, match="only predicts, found mode='loss'"):
        model.forward(None, [sample], mode="loss")
