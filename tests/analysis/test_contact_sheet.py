"""The sheet of pictures: each picture in its cell, and refusals before anything is written."""

import cv2
import numpy as np
import pytest

from mmvanilla.analysis.contact_sheet import save_contact_sheet

GAP = 12


@pytest.fixture
def pictures(tmp_path):
    """Five pictures of 20×30 pixels, each of its own grey."""
    paths = [tmp_path / f"{index}.png" for index in range(5)]
    for index, path in enumerate(paths):
        cv2.imwrite(str(path), np.full((20, 30, 3), 40 * index, np.uint8))
    return paths


def test_every_picture_has_its_cell_row_by_row(pictures, tmp_path):
    out = tmp_path / "new" / "sheet.png"
    save_contact_sheet(pictures, out, columns=2)
    sheet = cv2.imread(str(out))
    assert sheet.shape == (GAP + 3 * (20 + GAP), GAP + 2 * (30 + GAP), 3)
    expected = np.full_like(sheet, 255)
    for index in range(5):
        y, x = GAP + index // 2 * (20 + GAP), GAP + index % 2 * (30 + GAP)
        expected[y : y + 20, x : x + 30] = 40 * index
    np.testing.assert_array_equal(sheet, expected)


def test_pictures_of_other_sizes_get_the_height_of_the_first(pictures, tmp_path):
    cv2.imwrite(str(pictures[1]), np.full((40, 40, 3), 7, np.uint8))
    save_contact_sheet(pictures[:2], tmp_path / "sheet.png", columns=9)
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    assert sheet.shape == (20 + 2 * GAP, 2 * 30 + 3 * GAP, 3)
    assert (sheet[GAP : GAP + 20, 30 + 2 * GAP : 50 + 2 * GAP] == 7).all()


def test_titles_stand_above_each_column(pictures, tmp_path):
    cv2.imwrite(str(pictures[0]), np.zeros((20, 400, 3), np.uint8))
    save_contact_sheet(pictures[:2], tmp_path / "sheet.png", titles=("truth", "found"))
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    above = sheet[: sheet.shape[0] - 20 - GAP].min(axis=(0, 2))
    for column in range(2):
        for half in range(2):
            left = GAP + column * (400 + GAP) + half * 200
            written = np.flatnonzero(above[left : left + 200] < 255)
            assert len(written) and written.mean() == pytest.approx(100, abs=10)


def test_what_cannot_be_a_sheet_is_refused(pictures, tmp_path):
    out = tmp_path / "sheet.png"
    text = tmp_path / "notes.png"
    text.write_text("no image")
    for arguments, message in [
        (([], out), "found 0 pictures"),
        ((pictures, out, 0), "columns=0"),
        ((pictures, tmp_path / "sheet.jpg"), "is a .png file, found"),
        (([*pictures, text], out), "notes.png cannot be read as an image"),
        ((pictures, pictures[0], 2, (), True), "is also an input"),
    ]:
        with pytest.raises(ValueError, match=message):
            save_contact_sheet(*arguments)
    assert not out.exists()
    out.write_text("precious")
    with pytest.raises(FileExistsError, match="exists already"):
        save_contact_sheet(pictures, out)
    assert out.read_text() == "precious"
    save_contact_sheet(pictures, out, overwrite=True)
    assert cv2.imread(str(out)) is not None
