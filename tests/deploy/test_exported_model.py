"""`mmvanilla test CONFIG MODEL.onnx`: the exported model under the metrics of its config."""

import pickle

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
from tests.helpers import CONFIGS, randomise  # noqa: E402

SINGLE = [
    f"{split}_dataloader.{key}={value}"
    for split in ("val", "test")
    for key, value in (("num_workers", 0), ("persistent_workers", False))
]


@pytest.mark.parametrize(
    "name",
    [
        "vanillanet_shapes",
        pytest.param("upernet_vanillanet_shapes", marks=pytest.mark.exhaustive),
    ],
)
def test_it_predicts_what_the_checkpoint_predicts(name, tmp_path, run_tool):
    pytest.importorskip("mmseg.models" if "upernet" in name else "mmpretrain.models")
    layout = "ade20k" if "upernet" in name else "imagenet"
    make_shapes(tmp_path / "data" / "shapes", layouts=(layout,), num_train=6, num_val=6)
    config = str(CONFIGS / "shapes" / f"{name}.py")
    cfg = load_config(config)
    torch.manual_seed(0)
    model = randomise(build_model(cfg)).eval()
    torch.save(dict(state_dict=model.state_dict()), tmp_path / "weights.pth")
    described = describe_for_runner(model, cfg, {})
    export_model(
        model, tmp_path / "net.onnx", find_format("net.onnx"), size=(64, 64), metadata=described
    )
    found = []
    for file in ("weights.pth", "net.onnx"):
        out = tmp_path / f"{file}.pkl"
        options = ["--work-dir", tmp_path / "runs", "--out", out, "--cfg-options", *SINGLE]
        assert run_tool("test", config, file, *options)[0] == 0
        found.append(pickle.loads(out.read_bytes()))
    assert len(found[0]) == len(found[1]) == 6
    for one, other in zip(*found, strict=True):
        if "pred_score" in one:
            torch.testing.assert_close(other["pred_score"], one["pred_score"], rtol=1e-3, atol=1e-4)
            assert torch.equal(other["pred_label"].flatten(), one["pred_label"].flatten())
        else:
            maps = [sample["pred_sem_seg"]["data"] for sample in (one, other)]
            assert maps[0].shape == maps[1].shape
            assert (maps[0] == maps[1]).float().mean() > 0.999
    for arguments, reason in {
        ("net.onnx", "--tta"): "--tta is for models in PyTorch",
        ("other.onnx",): "no model at other.onnx",
    }.items():
        status, printed = run_tool("test", config, *arguments)
        assert status == 1 and reason in printed.err.splitlines()[-1]


class Predicts:
    """Stands for a segmenter that was exported."""

    settings = dict(task="segmentation")

    def read(self, path):
        assert path == "image.png"

    def __call__(self, image):
        return dict(labels=np.arange(6).reshape(2, 3))


def test_maps_become_those_of_the_toolbox():
    structures = pytest.importorskip("mmseg.structures")
    model = ExportedModel.__new__(ExportedModel)
    torch.nn.Module.__init__(model)
    model.predictor = Predicts()
    sample = structures.SegDataSample(metainfo=dict(img_path="image.png"))
    (found,) = model.forward(None, [sample])
    assert found.pred_sem_seg.data.tolist() == [[[0, 1, 2], [3, 4, 5]]]
    with pytest.raises(ValueError, match="only on files"):
        model.forward(None, [structures.SegDataSample()])
    with pytest.raises(ValueError, match="only predicts"):
        model.forward(None, [sample], mode="loss")
