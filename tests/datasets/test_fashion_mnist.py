import gzip
from pathlib import Path

import numpy as np
import pytest

from mmvanilla.datasets import fashion_mnist
from mmvanilla.datasets.fashion_mnist import CLASSES, find_folder, read_photographs
from tests.fashion_files import draw_photographs, idx_bytes, write_fashion_mnist

LABELS = "t10k-labels-idx1-ubyte"
IMAGES = "t10k-images-idx3-ubyte"


@pytest.mark.parametrize("compressed", [True, False])
def test_reads_what_was_written(tmp_path, compressed):
    write_fashion_mnist(tmp_path, per_class=2, compressed=compressed)
    for number, split in enumerate(("train", "test")):
        found = read_photographs(tmp_path, split)
        images, labels = draw_photographs(2, seed=number)
        np.testing.assert_array_equal(found.images, images)
        np.testing.assert_array_equal(found.labels, labels)


def test_the_digest_is_of_the_content(tmp_path):
    packed = read_photographs(write_fashion_mnist(tmp_path / "a"), "test")
    plain = read_photographs(write_fashion_mnist(tmp_path / "b", compressed=False), "test")
    other = read_photographs(write_fashion_mnist(tmp_path / "c", seed=1), "test")
    assert packed.digest == plain.digest != other.digest
    assert packed.digest != read_photographs(tmp_path / "a", "train").digest


def test_the_toolbox_names_the_same_classes_and_reads_the_same_files(tmp_path):
    mnist = pytest.importorskip("mmpretrain.datasets.mnist")
    categories = pytest.importorskip("mmpretrain.datasets.categories")
    assert list(CLASSES) == list(categories.FASHIONMNIST_CATEGORITES)
    write_fashion_mnist(tmp_path, compressed=False)
    found = read_photographs(tmp_path, "test")
    np.testing.assert_array_equal(mnist.read_label_file(str(tmp_path / LABELS)), found.labels)
    np.testing.assert_array_equal(mnist.read_image_file(str(tmp_path / IMAGES)), found.images)


def test_finds_the_folder_of_the_project_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    installed = tmp_path / "installed"
    monkeypatch.setattr(fashion_mnist, "FOLDERS", ("data/fashion_mnist", str(installed)))
    with pytest.raises(FileNotFoundError, match="^no Fashion-MNIST in .*apt-get install dataset-f"):
        find_folder()
    installed.mkdir()
    assert find_folder() == installed
    Path("data/fashion_mnist").mkdir(parents=True)
    assert find_folder() == Path("data/fashion_mnist")
    assert find_folder(installed) == installed
    with pytest.raises(FileNotFoundError, match="^no folder nowhere .*apt-get install"):
        find_folder("nowhere")


BAD = {
    "missing": (LABELS, None, FileNotFoundError, f"no file {LABELS}.gz, nor {LABELS}, in"),
    "no gzip": (IMAGES, b"hello", ValueError, "is damaged"),
    "cut off": (IMAGES, gzip.compress(bytes(5000))[:-9], ValueError, "is damaged"),
    "empty": (IMAGES, gzip.compress(b""), ValueError, "begins with nothing, expected 00 00 08 03"),
    "other type": (
        LABELS,
        gzip.compress(b"\0\0\x0d\x01\0\0\0\x02ab"),
        ValueError,
        "begins with 00 00 0d 01, expected 00 00 08 01",
    ),
    "too short": (
        LABELS,
        gzip.compress(b"\0\0\x08\x01\0\0\0\x03ab"),
        ValueError,
        "has 2 values, expected 3 for 3",
    ),
    "other size": (
        IMAGES,
        gzip.compress(idx_bytes(np.zeros((30, 32, 30)))),
        ValueError,
        "have 32x30 pixels, expected 28x28",
    ),
    "fewer": (
        LABELS,
        gzip.compress(idx_bytes(np.zeros(7))),
        ValueError,
        "have 30 images and 7 labels, expected as many",
    ),
    "other classes": (
        LABELS,
        gzip.compress(idx_bytes(np.full(30, 46))),
        ValueError,
        "go up to 46, expected 10 classes",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_damaged_and_foreign_files_are_refused_with_a_remedy(tmp_path, case):
    name, content, error, message = BAD[case]
    write_fashion_mnist(tmp_path)
    path = tmp_path / f"{name}.gz"
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(error, match=message) as caught:
        read_photographs(tmp_path, "test")
    assert "apt-get install dataset-fashion-mnist" in str(caught.value)
    assert "\n" not in str(caught.value)
