"""Finding configs and tools by path and by name."""

import pytest

from mmvanilla.utils import paths
from tests.helpers import CONFIGS


@pytest.mark.parametrize(
    "name",
    ["imagenet/vanillanet5_in1k.py", "vanillanet5_in1k", "./configs/imagenet/vanillanet5_in1k.py"],
)
def test_a_config_has_a_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vanillanet5_in1k").mkdir()  # a work dir, for one
    assert paths.resolve_config(name) == str(CONFIGS / "imagenet" / "vanillanet5_in1k.py")


def test_a_file_comes_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "maskrcnn_vanillanet.py").touch()
    assert paths.resolve_config("maskrcnn_vanillanet.py") == "maskrcnn_vanillanet.py"


def test_an_unknown_name_is_refused_with_a_remedy():
    with pytest.raises(FileNotFoundError, match="no config at maskrcnn_vanilanet.py;.* lists"):
        paths.config_path("maskrcnn_vanilanet.py")


def test_a_name_that_several_configs_have_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "configs_dir", lambda: tmp_path)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same.py").touch()
    with pytest.raises(ValueError, match=r"several .* a/same.py, b/same.py"):
        paths.config_path("same")


def test_parts_of_configs_are_no_configs():
    names = paths.config_names()
    assert "upernet_vanillanet.py" in names
    assert not any("_base_" in name for name in names)


def test_the_command_is_the_one_that_works_here(tmp_path, monkeypatch):
    monkeypatch.chdir(CONFIGS.parent)
    assert paths.tool_command("train") == "python tools/train.py"
    monkeypatch.chdir(tmp_path)
    assert paths.tool_command("train") == "mmvanilla train"
