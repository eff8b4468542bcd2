"""Weights with which a network would compute nonsense are refused."""

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS

from mmvanilla.apis.model import load_model
from mmvanilla.checkpoints.reading import check_weights

BAD = {
    "norm.weight": (float("nan"), "values from nan"),
    "norm.bias": (float("inf"), "to inf"),
    "norm.running_mean": (float("-inf"), "from -inf"),
    "norm.running_var": (-0.5, "from -0.5 to 1"),
    "head.mask": (float("nan"), "nan"),
}


@pytest.mark.parametrize("key", BAD)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_file_the_key_and_a_remedy_are_named(key, dtype):
    value, reason = BAD[key]
    tensor = torch.tensor([1, value], dtype=dtype)
    message = f"^a/b.pth: {key} .*{reason}.*take an earlier checkpoint"
    with pytest.raises(ValueError, match=message):
        check_weights({"other": torch.ones(2), key: tensor}, "a/b.pth")


def test_what_works_is_accepted():
    weights = {
        "attention.mask": torch.tensor([0.0, float("-inf")]),
        "steps": torch.tensor(-1),
        "norm.weight": torch.tensor([-1.0]),
        "norm.running_var": torch.tensor([0.0]),
        "note": "text",
        "meta.weight": torch.empty(2, device="meta"),
        "empty.weight": torch.empty(0),
        "repeated.weight": torch.ones(1).expand(9),  # one number, with a stride of 0
    }
    check_weights(weights, "x.pth")


def test_a_model_does_not_load_them(tmp_path):
    cfg = Config(dict(model=dict(type="VanillaNet", arch=dict(dims=(8, 16), strides=(2,)))))
    state = MODELS.build(cfg.model).state_dict()
    state["stem.conv.first.norm.running_var"][0] = -1
    torch.save(dict(state_dict=state), tmp_path / "bad.pth")
    with pytest.raises(ValueError, match=r"bad\.pth: stem\..*running_var has values from -1 to 1"):
        load_model(cfg, str(tmp_path / "bad.pth"))
