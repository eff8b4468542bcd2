import shutil
from pathlib import Path

import pytest
from mmengine.config import Config

from mmvanilla.utils import paths


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Return a function that puts the package into a folder that holds what it is told to."""

    def install(*folders, setup=False):
        package = tmp_path / "site-packages" / "mmvanilla"
        package.mkdir(parents=True)
        for folder in folders:
            (tmp_path / "site-packages" / folder).mkdir(parents=True)
        if setup:
            (tmp_path / "site-packages" / "setup.py").touch()
        monkeypatch.setattr(paths, "_PACKAGE", package)
        return tmp_path / "site-packages"

    return install


@pytest.mark.parametrize(
    ("name", "find"), [("configs", paths.configs_dir), ("tools", paths.tools_dir)]
)
class TestFolders:
    def test_inside_an_installed_package(self, installed, name, find):
        site = installed(f"mmvanilla/.mim/{name}", name, setup=True)
        assert find() == site / "mmvanilla" / ".mim" / name

    def test_in_the_clone(self, installed, name, find):
        site = installed(name, setup=True)
        assert find() == site / name

    def test_not_in_somebody_elses_folder(self, installed, name, find):
        installed(name)
        with pytest.raises(
            RuntimeError, match=f"found no folder {name} .*pip install --force-reinstall"
        ):
            find()

    def test_here(self, name, find):
        assert find().name == name
        assert any(find().glob("*.py"))


def test_config_path():
    some = sorted(path.name for path in paths.configs_dir().glob("*.py"))[0]
    path = Path(paths.config_path(some))
    assert path.is_absolute()
    assert path.is_file()
    assert path.name == some


def test_config_path_of_an_unknown_config(installed):
    site = installed("configs/_base_", setup=True)
    (site / "configs" / "known.py").touch()
    (site / "configs" / "_base_" / "part.py").touch()
    assert paths.config_path("_base_/part.py") == str(site / "configs/_base_/part.py")
    with pytest.raises(ValueError, match=r"named 'kown\.py'.*choose from known\.py"):
        paths.config_path("kown.py")


def test_a_config_that_moved_is_found_by_its_name():
    with pytest.raises(ValueError, match=r"choose from imagenet/vanillanet5_in1k\.py$"):
        paths.config_path("vanillanet5_in1k.py")


class TestToolCommand:
    def test_in_the_clone(self, monkeypatch):
        monkeypatch.chdir(paths.tools_dir().parent)
        assert paths.tool_command("make_shapes") == "python tools/make_shapes.py"

    def test_elsewhere_even_beside_tools_of_others(self, monkeypatch, tmp_path):
        (tmp_path / "tools").mkdir()
        (tmp_path / "tools" / "make_shapes.py").touch()
        monkeypatch.chdir(tmp_path)
        assert paths.tool_command("make_shapes") == "python -m mmvanilla make_shapes"


@pytest.mark.parametrize(
    "how",
    [
        '__import__("mmvanilla").config_path("ours.py")',
        '[__import__("mmvanilla").config_path("ours.py")]',
    ],
)
def test_a_config_of_another_project_inherits_ours(installed, tmp_path, how):
    site = installed("configs/_base_", setup=True)
    (site / "configs" / "_base_" / "part.py").write_text("depth = 13\n")
    (site / "configs" / "ours.py").write_text(
        "_base_ = '_base_/part.py'\nmodel = dict(type='VanillaNet', depth=_base_.depth, lr=1)\n"
    )
    theirs = tmp_path / "project" / "theirs.py"
    theirs.parent.mkdir()
    theirs.write_text(f"_base_ = {how}\nmodel = dict(lr=2)\n")
    config = Config.fromfile(theirs)
    assert config.model == {"type": "VanillaNet", "depth": 13, "lr": 2}
    # What training writes beside its checkpoints no longer refers to our package.
    config.dump(tmp_path / "dumped.py")
    shutil.rmtree(site)
    assert Config.fromfile(tmp_path / "dumped.py").model == config.model
