"""The table, and its place in a page."""

import pytest

from mmvanilla.analysis.ablation_rows import Row
from mmvanilla.analysis.ablation_run import Result
from mmvanilla.analysis.ablation_state import Choice, EndedRun, RowState, Run
from mmvanilla.analysis.ablation_table import BEGIN, END, ablation_table, require_marks, write_table


def state(switch, values, value=None, parameters=1234567):
    row = Row("folder/a.py", switch, {}, "")
    runs = [
        EndedRun(Run(row, seed), Result("top1", trained, fused, 11, parameters, 10.0 + seed))
        for seed, (trained, fused) in enumerate(values)
    ]
    return RowState(row, value=value, runs=runs)


def test_mean_and_sample_deviation_over_the_seeds():
    states = [state("full", [(90.0, 90.0), (94.0, 93.0)]), state("plain", [(80.0, 81.0)])]
    head, _, *rows = ablation_table(states).splitlines()
    assert head.startswith("| config | switch | seeds | top1 | fused | parameters, fused |")
    assert rows == [
        "| a | `full` | 2 | 92.0 ± 2.8 | 91.5 ± 2.1 | 1,234,567 | 11 |",
        "| a | `plain` | 1 | 80.0 | 81.0 | 1,234,567 | 11 |",
    ]


def test_a_choice_has_a_column():
    choice = Choice("optim_wrapper.optimizer.lr", (0.001, 0.01), {})
    head, _, row = ablation_table([state("full", [(1.0, 1.0)], 0.01)], choice).splitlines()
    assert head.startswith("| config | switch | lr | seeds |")
    assert row.startswith("| a | `full` | 0.01 | 1 |")


def test_the_page_keeps_what_is_around_the_table(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"Before.\n\n{BEGIN}\nold\n{END}\n\nBehind.\n")
    for table in ("| new |", "| newer |"):
        write_table(str(page), table)
        assert page.read_text() == f"Before.\n\n{BEGIN}\n\n{table}\n\n{END}\n\nBehind.\n"


@pytest.mark.parametrize("text", ["", BEGIN, f"{END}\n{BEGIN}", f"{BEGIN}{BEGIN}{END}{END}"])
def test_a_page_without_a_place_is_refused(tmp_path, text):
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(ValueError, match=r"page.md has no place for the table; write the lines"):
        require_marks(str(page))
    with pytest.raises(FileNotFoundError, match="no page at"):
        require_marks(str(tmp_path / "nothing.md"))
    with pytest.raises(ValueError, match="no place"):
        write_table(str(page), "| new |")
    assert page.read_text() == text
