import pytest
import torch
from mmengine.config import Config

from mmvanilla.apis.model import load_model
from mmvanilla.checkpoints.weights import check_weights

BAD = {
    "norm.weight": (float("nan"), "1 of its 3 values are NaN"),
    "norm.bias": (float("inf"), "1 of its 3 values are infinite"),
    "norm.running_mean": (float("-inf"), "infinite"),
    "norm.running_var": (-0.5, "a variance of -0.5 is negative"),
    "head.mask": (float("nan"), "NaN"),
}


@pytest.mark.parametrize("key", BAD)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_file_the_key_and_a_remedy_are_named(key, dtype):
    value, reason = BAD[key]
    tensor = torch.ones(3, dtype=dtype)
    tensor[1] = value
    with pytest.raises(ValueError) as caught:
        check_weights({"other": torch.ones(2), key: tensor}, "a/b.pth")
    message = str(caught.value)
    assert message.startswith(f"a/b.pth: {key} ") and reason in message
    assert "take an earlier checkpoint" in message


def test_what_works_is_accepted():
    check_weights(
        {
            "attention.mask": torch.tensor([0.0, float("-inf")]),
            "steps": torch.tensor(-1),
            "norm.weight": torch.tensor([-1.0]),
            "norm.running_var": torch.tensor([0.0]),
            "note": "text",
            "meta.weight": torch.empty(2, device="meta"),
        },
        "x.pth",
    )


def test_a_model_does_not_load_them(tmp_path):
    cfg = Config(dict(model=dict(type="VanillaNet", arch=dict(dims=(8, 16), strides=(2,)))))
    from mmengine.registry import MODELS

    state = MODELS.build(cfg.model).state_dict()
    state["stem.conv.first.norm.running_var"][0] = -1
    torch.save(dict(state_dict=state), tmp_path / "bad.pth")
    with pytest.raises(ValueError, match=r"bad\.pth: stem\.conv\.first\.norm\.running_var .*-1 is"):
        load_model(cfg, str(tmp_path / "bad.pth"))
