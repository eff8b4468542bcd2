"""`import mmvanilla` registers our classes and one scheme, and changes nothing else."""

import json
import subprocess
import sys

SCRIPT = """
import importlib, json, sys
import torch, torch._dynamo, numpy, mmengine.runner, mmengine.hub, mmcv.cnn
for name in sys.argv[1:]:
    importlib.import_module(name)
# What mmvanilla uses of these libraries, so that only its own doing is seen below.
import mmengine.optim, mmengine.visualization, mmengine.analysis, mmengine.registry.root as root
import torch.utils.checkpoint, torch.distributed.nn.functional

LIBRARIES = ("torch", "numpy", "mmengine", "mmcv", *sys.argv[1:])
REGISTRIES = [value for value in vars(root).values() if isinstance(value, mmengine.Registry)]

def state():
    found = {}
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] in LIBRARIES:
            for key, value in list(vars(module).items()):
                found[name, key] = describe(value)
                if isinstance(value, type) and value.__module__ == name:
                    for inner, part in list(vars(value).items()):
                        found[name, key, inner] = describe(part)
    found["sys.meta_path"] = [id(finder) for finder in sys.meta_path]
    found["sys.path_hooks"] = [id(hook) for hook in sys.path_hooks]
    found["excepthook"] = id(sys.excepthook)
    return found

def describe(value):
    size = len(value) if isinstance(value, (dict, list, set)) else None
    return id(value), size

def names():
    return {(registry.name, name) for registry in REGISTRIES for name in registry.module_dict}

before, registered = state(), names()
import mmvanilla
after = state()
changed = sorted(
    str(place) for place, value in before.items() if after.get(place) != value
)
new = sorted(f"{registry} {name}" for registry, name in names() - registered)
ours = all(
    registry.module_dict[name].__module__.startswith("mmvanilla.")
    for registry in REGISTRIES
    for kind, name in names() - registered
    if registry.name == kind
)
print(json.dumps(dict(changed=changed, new=new, ours=ours)))
"""


def test_importing_changes_only_registries_and_one_scheme():
    from mmvanilla.utils.dependencies import has_toolbox

    toolboxes = [name for name in ("mmdet", "mmseg", "mmpretrain") if has_toolbox(name)]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, *toolboxes], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["ours"]
    assert "model VanillaNet" in found["new"] and "hook DeepTrainingHook" in found["new"]
    scheme = "('mmengine.runner.checkpoint', 'CheckpointLoader', '_schemes')"
    assert found["changed"] == [scheme]
