"""MMPretrain lists our classifiers, whichever of the two is imported first."""

import subprocess
import sys

import pytest

from mmvanilla.models.archs import ARCHS
from mmvanilla.utils import model_hub
from mmvanilla.utils.model_hub import _HUB, register_classifiers

pytestmark = pytest.mark.toolbox("mmpretrain")
NAMES = sorted(f"vanillanet-{name}_in1k" for name in ARCHS)


@pytest.mark.slow
@pytest.mark.parametrize("order", [("mmvanilla", "mmpretrain"), ("mmpretrain", "mmvanilla")])
def test_models_are_listed_in_either_order(order):
    code = f"""if True:
        import sys
        import {order[0]}
        print("{_HUB}" in sys.modules)
        import {order[1]}, mmpretrain
        print(mmpretrain.list_models("*vanilla*"))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    # Importing mmvanilla does not import MMPretrain.
    assert lines[0] == str(order[0] == "mmpretrain")
    assert lines[-1] == str(NAMES)


def test_a_model_is_built_by_its_name():
    import mmpretrain
    import torch

    register_classifiers()  # again: does nothing
    with torch.device("meta"):
        model = mmpretrain.get_model("VanillaNet-9_in1k", head=dict(num_classes=7))
    assert type(model.backbone).__name__ == "VanillaNet"
    assert model.backbone.arch == ARCHS["9"] and model.head.num_classes == 7
    assert mmpretrain.list_models("vanillanet-13*", task="Image Classification") == NAMES[3:6]


def test_what_mmpretrain_does_not_have_is_let_be(monkeypatch):
    monkeypatch.setitem(sys.modules, _HUB, type(sys)("another"))
    register_classifiers()
    finder = model_hub._WhenImported()
    assert finder.find_spec("mmpretrain.apis", None) is None


def test_one_finder_waits_however_often_it_is_asked(monkeypatch):
    monkeypatch.delitem(sys.modules, _HUB, raising=False)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    before = len([f for f in sys.meta_path if isinstance(f, model_hub._WhenImported)])
    register_classifiers()
    register_classifiers()
    waiting = [f for f in sys.meta_path if isinstance(f, model_hub._WhenImported)]
    assert len(waiting) == max(before, 1)
