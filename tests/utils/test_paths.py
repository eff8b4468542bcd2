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
        site = installed(f"mmvanilla/.mim/{name}", name)
        assert find() == site / "mmvanilla" / ".mim" / name

    def test_in_the_clone(self, installed, name, find):
        site = installed(f"mmvanilla/.mim/{name}", name, setup=True)
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


@pytest.fixture
def packaged(installed, tmp_path, monkeypatch):
    """A package with some configs, and an empty working directory."""
    site = installed("configs/_base_", "configs/shapes", "configs/other", setup=True)
    for name in (
        "known.py",
        "_base_/part.py",
        "shapes/twice.py",
        "other/twice.py",
        "shapes/x1.5.py",
    ):
        (site / "configs" / name).touch()
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    return site / "configs"


@pytest.mark.parametrize(
    ("given", "means"),
    [
        ("known.py", "known.py"),
        ("known", "known.py"),
        ("_base_/part.py", "_base_/part.py"),
        ("shapes/twice", "shapes/twice.py"),
        ("x1.5", "shapes/x1.5.py"),
        ("mmvanilla::shapes/x1.5.py", "shapes/x1.5.py"),
        ("mmvanilla::known", "known.py"),
    ],
)
def test_a_packaged_config_is_found_by_its_name(packaged, given, means):
    assert paths.config_path(given) == str(packaged / means)
    assert paths.resolve_config(given) == str(packaged / means)


@pytest.mark.parametrize("given", ["configs/known.py", "./configs/shapes/twice.py", "./known.py"])
def test_a_command_line_may_name_the_folder_of_the_configs(packaged, given):
    found = paths.resolve_config(given)
    assert found == str(packaged / given.removeprefix("./").removeprefix("configs/"))


def test_a_file_at_the_given_path_comes_first(packaged, tmp_path):
    Path("known.py").touch()
    assert paths.resolve_config("known.py") == "known.py"
    assert paths.resolve_config("known") == str(packaged / "known.py")
    Path("x1.5").mkdir()  # a folder is no config
    assert paths.resolve_config("x1.5") == str(packaged / "shapes" / "x1.5.py")
    Path("lonely").mkdir()
    assert paths.resolve_config("lonely") == "lonely"


def test_names_are_listed_without_the_parts(packaged):
    assert paths.config_names() == [
        "known.py",
        "other/twice.py",
        "shapes/twice.py",
        "shapes/x1.5.py",
    ]


def test_a_name_that_fits_two_configs_is_refused(packaged):
    for find in (paths.config_path, paths.resolve_config):
        with pytest.raises(ValueError, match=r"choose from other/twice\.py, shapes/twice\.py$"):
            find("twice.py")


@pytest.mark.parametrize("given", ["kown.py", "shapes/kown", "mmvanilla::kown.py"])
def test_an_unknown_config_gets_the_nearest_names(packaged, given):
    with pytest.raises(ValueError, match=r"named '.*kown.*'.*choose from known\.py$"):
        paths.config_path(given)
    message = (
        r"no config at .*kown.*; check the path and the working directory, or choose one that "
        r"`mmvanilla configs` lists; did you mean known\.py\?$"
    )
    with pytest.raises(FileNotFoundError, match=message):
        paths.resolve_config(given)


def test_a_name_like_no_other(packaged):
    with pytest.raises(ValueError, match=r"choose from known\.py, other/twice\.py, shapes/twice"):
        paths.config_path("zzzz.py")
    with pytest.raises(FileNotFoundError, match="`mmvanilla configs` lists$"):
        paths.resolve_config("zzzz.py")


@pytest.mark.parametrize(
    "old",
    ["vanillanet5_in1k", "vanillanet13x1.5_ada_in1k", "vanillanet6_cifar100", "vanillanet_shapes"],
)
def test_a_config_that_moved(old, tmp_path, monkeypatch):
    """The old name still works, and the old path gets the new name."""
    monkeypatch.chdir(tmp_path)
    new = paths.config_path(f"{old}.py")
    name = Path(new).relative_to(paths.configs_dir()).as_posix()
    assert "/" in name and Path(new).name == f"{old}.py"
    with pytest.raises(FileNotFoundError, match=rf"did you mean {name}\?$"):
        paths.resolve_config(f"configs/{old}.py")


class TestToolCommand:
    def test_in_the_clone(self, monkeypatch):
        monkeypatch.chdir(paths.tools_dir().parent)
        assert paths.tool_command("make_shapes") == "python tools/make_shapes.py"
        assert paths.tool_command("dist_train.sh") == "tools/dist_train.sh"

    def test_elsewhere_even_beside_tools_of_others(self, monkeypatch, tmp_path):
        (tmp_path / "tools").mkdir()
        (tmp_path / "tools" / "make_shapes.py").touch()
        monkeypatch.chdir(tmp_path)
        assert paths.tool_command("make_shapes") == "mmvanilla make_shapes"


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
