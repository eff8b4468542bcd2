"""Save a model with random weights as a training would, and fuse it."""

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmvanilla.apis.model import load_model
from mmvanilla.deploy import fuse_checkpoint as module
from tests.helpers import randomise


def write_config(folder, scope, model):
    """Write the config of a model alone, and return its path."""
    path = folder / "config.py"
    path.write_text(
        "custom_imports = dict(imports=['mmvanilla'])\n"
        f"default_scope = {scope!r}\nmodel = {model!r}\n"
    )
    return path


def fuse(folder, config, monkeypatch, **changes):
    """Fuse random weights; returns the report, and both forms as they are compared."""
    monkeypatch.setattr(module, "_LATENCY_ROUNDS", 2)
    cfg = Config.fromfile(str(config))
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        weights = randomise(MODELS.build(cfg.model)).state_dict()
    torch.save(dict(state_dict=weights), folder / "trained.pth")
    files = [str(config), str(folder / "trained.pth"), str(folder / "fused.pth")]
    changes = {"sizes": [(64, 96)], **changes}
    report = module.fuse_checkpoint(*files, **changes)
    forms = []
    for path, checkpoint in (files[:2], (str(report.config), files[2])):
        cfg = module._compared_config(Config.fromfile(path))
        forms.append(load_model(cfg, checkpoint)[0])
    return report, *forms
