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
    """Return the folder of the data set: the given one, or the first of ``FOLDERS`` there is.

    Raises:
        FileNotFoundError: There is no such folder.
    """
    for known in FOLDERS if folder is None else (folder,):
        if Path(known).is_dir():
            return Path(known)
    where = " or ".join(FOLDERS) if folder is None else folder
    raise FileNotFoundError(f"no Fashion-MNIST in {where}; {_HOW_TO_GET}")


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
    images, images_bytes = _read_idx(folder, f"{prefix}-images-idx3-ubyte", 3)
    labels, labels_bytes = _read_idx(folder, f"{prefix}-labels-idx1-ubyte", 1)
    if images.shape[1:] != (SIZE, SIZE) or len(images) != len(labels) or not len(labels):
        raise ValueError(
            f"the {split} files in {folder} have images {images.shape} and labels {labels.shape}, "
            f"expected (N, {SIZE}, {SIZE}) and (N,); {_HOW_TO_GET}"
        )
    if labels.max() >= len(CLASSES):
        raise ValueError(
            f"the {split} labels in {folder} go up to {labels.max()}, expected {len(CLASSES)} "
            f"classes; this is not Fashion-MNIST: {_HOW_TO_GET}"
        )
    return Photographs(images, labels, hashlib.sha256(images_bytes + labels_bytes).hexdigest())


def _read_idx(folder: str | Path, name: str, num_dims: int) -> tuple[np.ndarray, bytes]:
    path = next(
        (path for path in (Path(folder, f"{name}.gz"), Path(folder, name)) if path.is_file()), None
    )
    if path is None:
        raise FileNotFoundError(f"no file {name}.gz, nor {name}, in {folder}; {_HOW_TO_GET}")
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    start = 4 + 4 * num_dims
    shape = tuple(map(int, np.frombuffer(content[4:start], ">u4")))
    if content[:4] != bytes([0, 0, 8, num_dims]) or len(content) != start + math.prod(shape):
        raise ValueError(
            f"{path} is no file of uint8 in {num_dims} dimensions in the idx format, or is "
            f"damaged; {_HOW_TO_GET}"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape), content
