from argparse import ArgumentParser

import pytest

from mmvanilla.utils import cli


@pytest.fixture
def parser() -> ArgumentParser:
    parser = ArgumentParser()
    cli.add_cfg_options(parser)
    return parser


def test_options_are_read_as_openmmlabs_tools_read_them(parser):
    line = ["--cfg-options", "a.b=1", "c=[1,2]", "d=(x,y)", "e=[]", "f=None", "g=a=b"]
    assert parser.parse_args(line).cfg_options == {
        "a.b": 1,
        "c": [1, 2],
        "d": ("x", "y"),
        "e": [],
        "f": None,
        "g": "a=b",
    }


@pytest.mark.parametrize("option", ["foo", "a=[1,(2]", "a=[(1,2]"])
def test_what_is_no_option_is_one_error_without_a_traceback(parser, capsys, option):
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(["--cfg-options", option])
    assert ended.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert "argument --cfg-options: cannot read" in last and option in last
    assert "give key=value" in last
