"""Read Fashion-MNIST: 70,000 photographs of garments, 28×28, in four files of the idx format.

The files are those that Debian's package dataset-fashion-mnist installs and that MMPretrain's
``FashionMNIST`` downloads; they may be compressed or not. An idx file begins with two zero bytes,
the code of its type (8: uint8), the number of its dimensions, and each dimension as a big-endian
uint32; the values follow.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

CLASSES: tuple[str, ...] = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
"""The classes as the data set names them, in the order of its labels."""
FOLDERS: tuple[str, ...] = ("data/fashion_mnist", "/usr/share/datasets/fashion-mnist")
"""Where the files are looked for: in the project's data, then where Debian's package has them."""
SIZE = 28  # height and width of an image in pixels
_PREFIXES = {"train": "train", "test": "t10k"}
_HOW_TO_GET = "install it by `apt-get install dataset-fashion-mnist`, or name its folder"


@dataclass(frozen=True)
class Photographs:
    """The images of one split.

    Attributes:
        images: Grey values, (N, 28, 28) uint8; 0 is the background.
        labels: Indices of ``CLASSES``, (N,) uint8.
        digest: SHA-256 of the content of both files, uncompressed, as hexadecimal digits.
    """

    images: np.ndarray
    labels: np.ndarray
    digest: str


def find_folder(folder: str | Path | None = None) -> Path:
    """Return the folder of the data set.

    Args:
        folder: The folder to use. None: the first one of ``FOLDERS`` that exists.

    Raises:
        FileNotFoundError: There is no such folder.
    """
    if folder is not None:
        if not Path(folder).is_dir():
            raise FileNotFoundError(f"no folder {folder} with Fashion-MNIST; {_HOW_TO_GET}")
        return Path(folder)
    for known in FOLDERS:
        if Path(known).is_dir():
            return Path(known)
    raise FileNotFoundError(f"no Fashion-MNIST in {' or '.join(FOLDERS)}; {_HOW_TO_GET}")


def read_photographs(folder: str | Path, split: str) -> Photographs:
    """Read one split of the data set.

    Args:
        folder: Folder of the four files.
        split: ``'train'`` (60,000 images) or ``'test'`` (10,000); the files may hold fewer.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A file is damaged, or is not of Fashion-MNIST.
    """
    prefix = _PREFIXES[split]
    images, images_bytes = _read_idx(_find_file(folder, f"{prefix}-images-idx3-ubyte"), 3)
    labels, labels_bytes = _read_idx(_find_file(folder, f"{prefix}-labels-idx1-ubyte"), 1)
    if images.shape[1:] != (SIZE, SIZE):
        height, width = images.shape[1:]
        raise ValueError(
            f"the {split} images in {folder} have {height}x{width} pixels, expected {SIZE}x{SIZE}; "
            f"this is not Fashion-MNIST: {_HOW_TO_GET}"
        )
    if len(images) != len(labels) or len(images) == 0:
        raise ValueError(
            f"the {split} files in {folder} have {len(images)} images and {len(labels)} labels, "
            f"expected as many of both; {_HOW_TO_GET}"
        )
    if labels.max() >= len(CLASSES):
        raise ValueError(
            f"the {split} labels in {folder} go up to {labels.max()}, expected {len(CLASSES)} "
            f"classes; this is not Fashion-MNIST: {_HOW_TO_GET}"
        )
    return Photographs(images, labels, hashlib.sha256(images_bytes + labels_bytes).hexdigest())


def _find_file(folder: str | Path, name: str) -> Path:
    for path in (Path(folder, f"{name}.gz"), Path(folder, name)):
        if path.is_file():
            return path
    raise FileNotFoundError(f"no file {name}.gz, nor {name}, in {folder}; {_HOW_TO_GET}")


def _read_idx(path: Path, num_dims: int) -> tuple[np.ndarray, bytes]:
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is damaged ({error}); {_HOW_TO_GET}") from error
    start = 4 + 4 * num_dims
    if len(content) < start or content[:4] != bytes([0, 0, 8, num_dims]):
        raise ValueError(
            f"{path} begins with {content[:4].hex(' ') or 'nothing'}, expected 00 00 08 "
            f"{num_dims:02x}, the idx format of uint8 in {num_dims} dimension(s); {_HOW_TO_GET}"
        )
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", num_dims, offset=4))
    if len(content) - start != math.prod(shape):
        raise ValueError(
            f"{path} has {len(content) - start} values, expected {math.prod(shape)} for "
            f"{' x '.join(map(str, shape))}; it is damaged: {_HOW_TO_GET}"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape), content
