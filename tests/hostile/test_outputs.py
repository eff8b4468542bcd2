"""Every tool that writes × every place that cannot or must not be written; and numbers."""

from __future__ import annotations

import shutil

import pytest

from tests.hostile.rule import assert_refused

pytestmark = pytest.mark.toolbox("mmpretrain")

# {out} is what the tool is to write.
WRITERS: dict[str, tuple[str, ...]] = {
    "fuse": ("fuse_backbone.py", "good.py", "good.pth", "{out}.pth"),
    "export": ("export_onnx.py", "good.py", "good.pth", "{out}.onnx"),
    "quantize": ("quantize_onnx.py", "good.py", "good.onnx", "{out}.onnx"),
    "features": ("visualize.py", "features", "good.py", "good.pth", "data/val/cat", "{out}.png"),
}
SUFFIXES = {"fuse": ".pth", "export": ".onnx", "quantize": ".onnx", "features": ".png"}


def write(forked_tools, home, writer, out, *options, **order):
    tool, *arguments = (part.format(out=out) for part in WRITERS[writer])
    return forked_tools.run(tool, *arguments, *options, folder=home, **order)


@pytest.mark.parametrize("writer", WRITERS)
def test_what_is_there_is_not_replaced(writer, forked_tools, home):
    name = f"mine{SUFFIXES[writer]}"
    (home / name).write_text("of the user")
    outcome = write(forked_tools, home, writer, "mine")
    line = assert_refused(outcome, name, home)
    assert "--overwrite" in line


@pytest.mark.parametrize("writer", WRITERS)
def test_a_folder_is_not_replaced(writer, forked_tools, home):
    name = f"mine{SUFFIXES[writer]}"
    (home / name).mkdir()
    assert_refused(write(forked_tools, home, writer, "mine"), name, home)
    assert_refused(write(forked_tools, home, writer, "mine", "--overwrite"), name, home)


@pytest.mark.parametrize("writer", WRITERS)
def test_a_file_is_no_folder(writer, forked_tools, home):
    assert_refused(write(forked_tools, home, writer, "good.py/mine"), "good.py", home)


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_leaves_nothing(writer, forked_tools, home):
    # A limit on the size of files fails as a full disk does: in the middle of writing.
    outcome = write(forked_tools, home, writer, "mine", limits={"RLIMIT_FSIZE": 2000})
    assert_refused(outcome, "mine", home)


@pytest.mark.parametrize("writer", ["fuse", "quantize"])
def test_an_input_is_no_output(writer, forked_tools, home):
    outcome = write(forked_tools, home, writer, "good", "--overwrite")
    assert_refused(outcome, f"good{SUFFIXES[writer]}", home)


def test_fusing_does_not_replace_the_config_that_it_reads(forked_tools, home):
    shutil.copy(home / "good.pth", home / "trained.pth")
    outcome = forked_tools.run(
        "fuse_backbone.py", "good.py", "trained.pth", "good.pth", "--overwrite", folder=home
    )
    assert_refused(outcome, "good.py", home)


@pytest.mark.parametrize("suffix", ["", ".txt", ".py"])
@pytest.mark.parametrize("writer", WRITERS)
def test_another_ending_is_refused(writer, suffix, forked_tools, home):
    tool, *arguments = (part.format(out="mine") for part in WRITERS[writer])
    arguments[-1] = f"mine{suffix}"
    assert_refused(forked_tools.run(tool, *arguments, folder=home), f"mine{suffix}", home)


_QUANTIZE = ("quantize_onnx.py", "good.py", "good.onnx", "int8.onnx")
_PREDICT = ("visualize.py", "predict", "good.py", "good.pth", "data/val/cat", "drawn")
# What the error must name → the command line with the number.
NUMBERS: dict[str, tuple[str, ...]] = {
    "image_size": ("make_shapes.py", "made", "--image-size", "999999999"),
    "image_size is 0": ("make_shapes.py", "made", "--image-size", "0"),
    "num_train": ("make_shapes.py", "made", "--num-train", "-1"),
    "fewer or smaller": ("make_shapes.py", "made", "--num-train", "999999999999"),
    "seed": ("make_shapes.py", "made", "--seed", "-1"),
    "calibration_images": (*_QUANTIZE, "--calibration-images", "0"),
    "test_images": (*_QUANTIZE, "--test-images", "-1"),
    "shape": ("get_flops.py", "good.py", "--shape", "0", "224"),
    "4x4": ("get_flops.py", "good.py", "--shape", "4", "4"),
    "tolerance": ("fuse_backbone.py", "good.py", "good.pth", "out.pth", "--tolerance", "nan"),
    "limit": (*_PREDICT, "--limit", "0"),
    "rounds": ("benchmark.py", "--archs", "5", "--rounds", "0", "--out", "timed"),
    "batches": ("benchmark.py", "--archs", "5", "--batches", "0", "--out", "timed"),
    "max_epochs": ("train.py", "good.py", "--cfg-options", "train_cfg.max_epochs=-1"),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_out_of_its_range_is_refused(name, forked_tools, home):
    tool, *arguments = NUMBERS[name]
    outcome = forked_tools.run(tool, *arguments, folder=home, timeout=60)
    assert_refused(outcome, name, home, may_write=("work",))


IMAGES = {
    "text": b"this is no image",
    "empty": b"",
    "half a picture": None,
}


@pytest.mark.parametrize("kind", IMAGES)
@pytest.mark.parametrize("what", ["predict", "features"])
def test_a_file_that_is_no_image_is_refused(what, kind, forked_tools, home):
    content = IMAGES[kind]
    good = (home / "data" / "val" / "cat" / "0.png").read_bytes()
    (home / "broken.png").write_bytes(good[: len(good) // 3] if content is None else content)
    out = "drawn" if what == "predict" else "out.png"
    outcome = forked_tools.run(
        "visualize.py", what, "good.py", "good.pth", "broken.png", out, folder=home
    )
    assert_refused(outcome, "broken.png", home)


@pytest.mark.parametrize("kind", ["text", "half a picture"])
def test_a_broken_image_in_the_data_is_named(kind, forked_tools, home):
    content = IMAGES[kind]
    path = home / "data" / "val" / "cat" / "0.png"
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 3] if content is None else content)
    outcome = forked_tools.run("test.py", "good.py", "good.pth", folder=home)
    assert_refused(outcome, "0.png", home, may_write=("work",))


def test_missing_data_is_refused_before_anything_is_built(forked_tools, home):
    shutil.rmtree(home / "data" / "train")
    outcome = forked_tools.run("train.py", "good.py", folder=home)
    assert_refused(outcome, "data/train", home)
