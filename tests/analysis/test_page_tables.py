"""Numbers in cells, and the place of a table in a page."""

import pytest

from mmvanilla.analysis.page_tables import marks, mean_and_deviation, require_marks, write_table

BEGIN, END = marks("mine")


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([93.44, 93.66], "93.5 ± 0.2"),
        ([0.8111, 0.8123, 0.8141], "0.812 ± 0.002"),
        ([0.81149], "0.811"),
        ([12.0], "12.0"),
    ],
)
def test_percentages_have_one_digit_and_shares_of_one_three(values, text):
    assert mean_and_deviation(values) == text


def test_each_table_of_a_page_has_its_own_place(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("\n".join(["A", *marks("mine"), "B", *marks("yours"), "C"]))
    write_table(str(page), "yours", "| yours |")
    write_table(str(page), "mine", "| mine |")
    kept = [line for line in page.read_text().splitlines() if line and "<!--" not in line]
    assert kept == ["A", "| mine |", "B", "| yours |", "C"]


def test_the_page_keeps_what_is_around_the_table(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"Before.\n\n{BEGIN}\nold\n{END}\n\nBehind.\n")
    for table in ("| new |", "| newer |"):
        write_table(str(page), "mine", table)
        assert page.read_text() == f"Before.\n\n{BEGIN}\n\n{table}\n\n{END}\n\nBehind.\n"


@pytest.mark.parametrize("text", ["", BEGIN, f"{END}\n{BEGIN}", f"{BEGIN}{BEGIN}{END}{END}"])
def test_a_page_without_a_place_is_refused(tmp_path, text):
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(ValueError, match=r"page.md has no place for the table; write the lines"):
        require_marks(str(page), "mine")
    with pytest.raises(FileNotFoundError, match="no page at"):
        require_marks(str(tmp_path / "nothing.md"), "mine")
    with pytest.raises(ValueError, match="no place"):
        write_table(str(page), "mine", "| new |")
    assert page.read_text() == text
