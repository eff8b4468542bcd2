"""`check` tells before a training what is wrong with a config, and `train` asks it first."""

from __future__ import annotations

import pytest

from tests.hostile.rule import assert_refused

pytestmark = pytest.mark.toolbox("mmpretrain")

OTHER_CHANNELS = "_base_ = ['good.py']\nmodel = dict(head=dict(in_channels=8))\n"
OTHER_CLASSES = "_base_ = ['good.py']\nmodel = dict(head=dict(num_classes=3))\n"


def test_a_config_in_order(forked_tools, home):
    outcome = forked_tools.run("check.py", "good.py", folder=home)
    assert outcome.status == 0, outcome.errors
    assert not outcome.changed and "fault" not in outcome.output
    for word in ("custom_imports", "channels and levels", "data", "[16] channels"):
        assert word in outcome.output, outcome.output
    # Trained from scratch without the hook: a warning, which is no fault.
    assert "warning: λ:" in outcome.output


def test_faults_are_listed_with_their_remedies(forked_tools, home):
    (home / "wrong.py").write_text(OTHER_CHANNELS)
    outcome = forked_tools.run("check.py", "wrong.py", folder=home)
    assert_refused(outcome, "wrong.py: 1 fault;", home)
    (line,) = (text for text in outcome.output.splitlines() if text.startswith("fault: "))
    assert "model.head.in_channels is 8" in line and "set model.head.in_channels=16" in line


def test_class_folders_count(forked_tools, home):
    (home / "wrong.py").write_text(OTHER_CLASSES)
    outcome = forked_tools.run("check.py", "wrong.py", folder=home)
    assert_refused(outcome, "wrong.py", home)
    assert "2 class folders" in outcome.output


def test_train_refuses_before_it_writes_anything(forked_tools, home):
    (home / "wrong.py").write_text(OTHER_CHANNELS)
    line = assert_refused(forked_tools.run("train.py", "wrong.py", folder=home), "wrong.py", home)
    assert "set model.head.in_channels=16" in line and "--no-check" in line


def test_without_the_check_the_error_of_torch_is_explained(forked_tools, home):
    (home / "wrong.py").write_text(OTHER_CHANNELS)
    outcome = forked_tools.run("train.py", "wrong.py", "--no-check", folder=home)
    line = assert_refused(outcome, "wrong.py", home, may_write=("work",))
    assert "built for 8 channels, and gets 16" in line


def test_options_count_and_shapes_are_checked(forked_tools, home):
    (home / "wrong.py").write_text(OTHER_CHANNELS)
    options = ("--cfg-options", "model.head.in_channels=16")
    assert forked_tools.run("check.py", "wrong.py", *options, folder=home).status == 0
    assert forked_tools.run("train.py", "wrong.py", *options, folder=home).status == 0
    small = forked_tools.run("check.py", "good.py", "--shape", "4", folder=home)
    assert "too small" in small.output and small.status == 1
    for shape in (["0", "9"], ["9", "9", "9"]):
        assert (
            "--shape"
            in forked_tools.run("check.py", "good.py", "--shape", *shape, folder=home).errors
        )
