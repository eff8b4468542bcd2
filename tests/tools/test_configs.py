"""The tool `configs`, and the names that it lists in other tools."""

import pytest

from mmvanilla.utils import paths
from tests.helpers import CONFIGS


def test_lists_names_with_what_they_are(run_tool):
    status, output = run_tool("configs")
    assert status == 0 and len(output.out.splitlines()) == 2 * len(paths.config_names())
    lines = run_tool("configs", "UPerNet")[1].out.splitlines()
    about = lines[lines.index("upernet_vanillanet.py") + 1]
    assert about.startswith("    UPerNet with VanillaNet-13")


def test_a_pattern_that_fits_nothing_is_an_error(run_tool):
    status, output = run_tool("configs", "nowhere")
    assert status == 1 and output.err.startswith("error: no config has 'nowhere' in its name")


@pytest.mark.toolbox("mmpretrain")
def test_shows_what_a_config_inherits(run_tool):
    options = ("--cfg-options", "model.head.num_classes=7")
    status, output = run_tool("configs", "--show", "vanillanet_shapes", *options)
    assert status == 0
    assert "num_classes=7" in output.out and "default_scope = 'mmpretrain'" in output.out


def test_shows_where_a_config_is(run_tool):
    status, output = run_tool("configs", "--path", "vanillanet_shapes")
    assert (status, output.out.strip()) == (0, str(CONFIGS / "shapes" / "vanillanet_shapes.py"))
