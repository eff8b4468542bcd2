"""Every config that cannot be used gives one line: the file, the reason, a remedy."""

import sys
import tempfile

import pytest

from mmvanilla.apis.config import load_config

GOOD = "model = dict(type='X')\n"
# name: content, and what the message says.
BAD = {
    "no_model.py": ("x = 1\n", "it has no model; give one that defines"),
    "model_is_text.py": ("model = 'VanillaNet'\n", "its model is 'VanillaNet', not a dict"),
    "syntax.py": ("x = 1\nmodel = dict(\n", r"line 2: .*never closed; correct the file"),
    "own_base.py": ("_base_ = 'own_base.py'\n", r"inherits from itself by _base_: .* → .*own_base"),
    "exits.py": ("import sys\nsys.exit(0)\n", r"ended the program by sys\.exit\(0\)"),
    "raises.py": ("x = 1\nx / 0\n", "line 2: ZeroDivisionError: division by zero"),
    "empty.py": ("", "is empty; give a config"),
    "latin.py": ("# \xe9\n".encode("latin1"), r"not UTF-8 text \(byte 2\)"),
    "nul.py": (b"\0", "null bytes"),
    "config.txt": (GOOD, r"name must end in \.py, \.json"),
    "list.json": ("[1]", "cannot read the config .*list"),
    "broken.json": ("{", "line 1 column 2"),
    "broken.yaml": ("a: [", "ParserError"),
    "web_base.py": ("_base_ = 'http://host/x.py'\n", "_base_ takes files only, so download it"),
    "lost_base.py": ("_base_ = ['lost.py']\n", r"by _base_ from .*lost\.py, which is not a file"),
    "folder_base.py": ("_base_ = '.'\n", "which is not a file; correct its _base_"),
    "bad_base.py": (
        "_base_ = 'raises.py'\n",
        r"bad_base\.py, which inherits from .*raises",
    ),
    "wrong_base.py": ("_base_ = 3\n", "TypeError"),
    "unknown_package.py": ("_base_ = 'mmnone::x.py'\n", "specify the package name"),
    "two_bases.py": ("_base_ = ['no_model.py', 'no_model.py']\n", "Duplicate key"),
    "reserved.py": (GOOD + "filename = 'x'\n", "filename is reserved"),
    "imports.py": (
        GOOD + "custom_imports = dict(imports=['lost'], allow_failed_imports=False)\n",
        r"Failed to import custom modules from .* \(Failed to import lost\)",
    ),
    "scope.py": (
        GOOD + "default_scope = 'mmnone'\n",
        "default_scope='mmnone', and no such",
    ),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name, (content, _) in BAD.items():
        data = content if isinstance(content, bytes) else content.encode()
        (tmp_path / name).write_bytes(data)
    (tmp_path / "good.py").write_text(GOOD)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path


@pytest.mark.parametrize("name", BAD)
def test_a_bad_config_is_one_error_with_file_and_reason(folder, name):
    before = sorted(folder.rglob("*"))
    with pytest.raises((ValueError, ImportError, FileNotFoundError), match=BAD[name][1]) as caught:
        load_config(str(folder / name))
    message = str(caught.value)
    assert name in message and "\n" not in message
    assert any(part in message for part in ("; ", "must end in"))  # a remedy
    assert sorted(path for path in folder.rglob("*") if "__pycache__" not in str(path)) == before


def test_a_circle_of_bases_is_shown(tmp_path):
    (tmp_path / "a.py").write_text("_base_ = 'b.py'\n")
    (tmp_path / "b.py").write_text("_base_ = 'a.py'\n")
    with pytest.raises(ValueError, match=r"a\.py → .*b\.py → .*a\.py; remove one"):
        load_config(str(tmp_path / "a.py"))


@pytest.mark.parametrize(
    ("name", "message"),
    [("nowhere.py", r"no config at .*nowhere\.py; check"), (".", "is a folder; give a config")],
)
def test_what_is_no_file_is_named(folder, name, message):
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        load_config(str(folder / name))


def test_an_interrupt_is_none_of_the_configs_errors(tmp_path):
    (tmp_path / "config.py").write_text("raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        load_config(str(tmp_path / "config.py"))


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
    [{"custom_imports.imports": ["lost"]}, {"custom_imports": 3}, {"custom_imports.imports": [3]}],
)
def test_modules_named_by_options_that_cannot_be_imported(tmp_path, options):
    (tmp_path / "config.py").write_text(GOOD)
    with pytest.raises(ImportError, match=r"^--cfg-options make custom_imports=.*cannot be impor"):
        load_config(str(tmp_path / "config.py"), options)


@pytest.mark.parametrize("options", [{"model.type.x": 1}, {"hooks.3.type": "X"}])
def test_options_that_do_not_fit_are_named(tmp_path, options):
    path = tmp_path / "config.py"
    path.write_text(GOOD + "hooks = [dict(type='A')]\n")
    with pytest.raises(ValueError, match=rf"--cfg-options {next(iter(options))} do not fit"):
        load_config(str(path), options)


def test_a_base_of_a_toolbox_that_is_missing_comes_with_the_command(tmp_path, monkeypatch):
    from mmengine.config import config as module

    from mmvanilla.utils import dependencies

    monkeypatch.setattr(module, "is_installed", lambda package: False)
    monkeypatch.setattr(dependencies, "has_toolbox", lambda name: name != "mmdet")
    (tmp_path / "config.py").write_text("_base_ = 'mmdet::_base_/default_runtime.py'\n")
    with pytest.raises(ImportError, match=r"config\.py .*: mmdet is not installed.*pip"):
        load_config(str(tmp_path / "config.py"))
