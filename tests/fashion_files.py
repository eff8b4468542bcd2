"""Files of Fashion-MNIST's format with drawn garments, so that tests need no data set."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np

NUM_CLASSES = 10


def draw_photographs(per_class: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw rectangles of several sizes, each class in a shade of its own, sorted by label."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(NUM_CLASSES, dtype=np.uint8), per_class)
    images = np.zeros((len(labels), 28, 28), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        top, left = rng.integers(1, 6, size=2)
        bottom, right = rng.integers(18, 27, size=2)
        image[top:bottom, left:right] = 60 + 19 * int(label)
        image[top:bottom, left:right] += rng.integers(0, 20, (bottom - top, right - left), np.uint8)
    return images, labels


def idx_bytes(values: np.ndarray) -> bytes:
    """Write an array of uint8 in the idx format."""
    head = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, dtype=">u4").tobytes()
    return head + values.astype(np.uint8).tobytes()


def write_fashion_mnist(
    folder: Path,
    per_class: int = 3,
    compressed: bool = True,
    seed: int = 0,
    test_per_class: int | None = None,
) -> Path:
    """Write the four files; by default, the test split has as many images as the training split."""
    folder.mkdir(parents=True, exist_ok=True)
    counts = {"train": per_class, "t10k": per_class if test_per_class is None else test_per_class}
    for number, (prefix, count) in enumerate(counts.items()):
        images, labels = draw_photographs(count, seed=2 * seed + number)
        for kind, values in (("images-idx3", images), ("labels-idx1", labels)):
            name, content = f"{prefix}-{kind}-ubyte", idx_bytes(values)
            if compressed:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content, mtime=0))
            else:
                (folder / name).write_bytes(content)
    return folder
