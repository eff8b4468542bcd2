"""Put pictures together on one sheet, in rows and columns, with titles above the columns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mmvanilla.checkpoints.writing import check_writable, write_whole

_GAP = 12  # pixels between the pictures and around them
_TITLE_HEIGHT = 28
_FONT: dict[str, Any] = dict(fontFace=cv2.FONT_HERSHEY_SIMPLEX, fontScale=0.6, thickness=1)


def save_contact_sheet(
    pictures: Sequence[str | Path],
    out: str | Path,
    columns: int = 2,
    titles: Sequence[str] = (),
    overwrite: bool = False,
) -> None:
    """Save a sheet of pictures, on white, row by row.

    Args:
        pictures: Paths of image files. All are scaled to the height of the first one, and placed
            in cells that are as wide as the widest of them.
        out: Path of the ``.png`` file to write; its folder is created if it does not exist.
        columns: Number of pictures in a row. Default: 2.
        titles: What stands above each column, in equal shares of a picture's width:
            ``("ground truth", "prediction")`` for pictures of two halves. Only ASCII. Empty: none.
        overwrite: Whether to replace an existing file. Default: False.

    Raises:
        ValueError: There is no picture, one is not an image, ``columns`` is below 1, ``out`` is not
            a ``.png`` file or is one of the pictures.
        FileExistsError: ``out`` exists and ``overwrite`` is False.
    """
    if not pictures or columns < 1:
        raise ValueError(
            "a contact sheet takes at least one picture and one column, found "
            f"{len(pictures)} pictures and columns={columns}"
        )
    if Path(out).suffix != ".png":
        raise ValueError(f"a contact sheet is a .png file, found {out}")
    check_writable([out], overwrite, pictures)
    images = [_read(path) for path in pictures]
    height = images[0].shape[0]
    images = [_with_height(image, height) for image in images]
    width = max(image.shape[1] for image in images)
    columns = min(columns, len(images))
    top = _GAP + (_TITLE_HEIGHT if titles else 0)
    rows = -(-len(images) // columns)
    sheet = np.full(
        (top + rows * (height + _GAP), _GAP + columns * (width + _GAP), 3), 255, dtype=np.uint8
    )
    for index, image in enumerate(images):
        row, column = divmod(index, columns)
        y, x = top + row * (height + _GAP), _GAP + column * (width + _GAP)
        sheet[y : y + height, x : x + image.shape[1]] = image
    for column in range(columns):
        for place, title in enumerate(titles):
            share = width / len(titles)
            _write_centred(sheet, title, _GAP + column * (width + _GAP) + (place + 0.5) * share)
    _, encoded = cv2.imencode(".png", sheet, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    write_whole(lambda file: file.write(encoded.tobytes()), out, overwrite)


def _read(path: str | Path) -> np.ndarray:
    image = cv2.imread(str(path))
    if image is None:
        raise ValueError(f"{path} cannot be read as an image; name a picture, such as a .png file")
    return image


def _with_height(image: np.ndarray, height: int) -> np.ndarray:
    if image.shape[0] == height:
        return image
    width = max(1, round(image.shape[1] * height / image.shape[0]))
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def _write_centred(sheet: np.ndarray, text: str, x: float) -> None:
    (width, height), _ = cv2.getTextSize(text, **_FONT)
    corner = (round(x - width / 2), (_GAP + _TITLE_HEIGHT + height) // 2)
    cv2.putText(sheet, text, corner, color=(0, 0, 0), lineType=cv2.LINE_AA, **_FONT)
