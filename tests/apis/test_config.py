"""Reading a config: its options, its toolbox, and one line where it cannot be used."""

import sys

import pytest
from mmengine.config import Config
from torch import nn

from mmvanilla.apis import config as module
from mmvanilla.apis.config import load_config, toolbox_of

GOOD = "model = dict(type='X')\n"
# name: content, and what the message says behind the name.
BAD = {
    "no_model.py": ("x = 1\n", "it defines no model"),
    "model_is_text.py": ("model = 'VanillaNet'\n", "it defines no model"),
    "exits.py": ("import sys\nsys.exit(3)\n", "SystemExit: 3"),
    "raises.py": ("x = 1\nx / 0\n", "ZeroDivisionError: division by zero"),
    "latin.py": ("# \xe9\n".encode("latin1"), "UnicodeDecodeError"),
    "config.txt": (GOOD, "Only py/yml/yaml/json"),
    "broken.json": ("{", "line 1 column 2"),
    "bad_base.py": ("_base_ = 'raises.py'\n", "ZeroDivisionError"),
    "imports.py": (
        GOOD + "custom_imports = dict(imports=['lost'], allow_failed_imports=False)\n",
        r"\(ImportError: Failed to import lost\)",
    ),
    "scope.py": (GOOD + "default_scope = 'mmnone'\n", "default_scope='mmnone', and no such"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_config_is_one_error_with_file_and_reason(tmp_path, name):
    for other, (content, _) in BAD.items():
        data = content if isinstance(content, bytes) else content.encode()
        (tmp_path / other).write_bytes(data)
    with pytest.raises((ValueError, ImportError), match=f"{name} .*{BAD[name][1]}") as caught:
        load_config(str(tmp_path / name))
    assert "\n" not in str(caught.value) and "sys.path" not in str(caught.value)


def test_options_are_merged_over_the_file(tmp_path):
    path = tmp_path / "config.py"
    path.write_text(GOOD + "optimizer = dict(lr=1.0, weight_decay=2.0)")
    cfg = load_config(str(path), {"optimizer.lr": 3.0})
    assert cfg.optimizer == dict(lr=3.0, weight_decay=2.0)


@pytest.mark.parametrize("key", ["custom_imports", "custom_imports.imports"])
def test_modules_named_by_options_are_imported(tmp_path, monkeypatch, key):
    (tmp_path / "named_by_an_option.py").write_text("")
    (tmp_path / "config.py").write_text(GOOD + "custom_imports = dict(imports=['mmvanilla'])")
    monkeypatch.syspath_prepend(tmp_path)
    imports = ["mmvanilla", "named_by_an_option"]
    options = {key: imports if key.endswith("imports.imports") else dict(imports=imports)}
    load_config(str(tmp_path / "config.py"), options)
    assert sys.modules.pop("named_by_an_option").__file__ == str(tmp_path / "named_by_an_option.py")


@pytest.mark.parametrize(
    "options",
    [{"custom_imports.imports": ["lost"]}, {"model.type.x": 1}, {"hooks.3.type": "X"}],
)
def test_options_that_do_not_fit_are_named(tmp_path, options):
    path = tmp_path / "config.py"
    path.write_text(GOOD + "hooks = [dict(type='A')]\n")
    with pytest.raises((ValueError, ImportError), match=f"--cfg-options {next(iter(options))} "):
        load_config(str(path), options)


def test_pure_python_configs_and_those_without_a_test():
    for kind in (nn.Conv2d, "torch.nn.Conv2d"):
        cfg = Config(dict(model=dict(type=kind), default_scope=None, test_dataloader=None))
        assert toolbox_of(cfg) == "torch" and module.tested_dataset(cfg) == {}
