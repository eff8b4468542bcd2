"""Choices that cannot work are refused before the work."""

import pytest

from mmvanilla.analysis.ablation_rows import rows_of
from mmvanilla.analysis.training_state import Choice

CONFIG = "model = dict(type='A')\nschedule = [dict(end=3), dict(end=5)]\nablations = dict(full={})"


@pytest.mark.parametrize("values", [(), (1.0,), (1.0, 2.0, 1.0), (1.0, float("nan"))])
def test_a_choice_needs_different_numbers(values):
    with pytest.raises(ValueError, match="needs two different numbers or more, found"):
        Choice("a.b", values, {})


def test_the_key_must_be_a_number_of_the_config(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(CONFIG)
    (row,) = rows_of(str(path))
    Choice("schedule.1.end", (1, 2), {}).require_key(row)
    for key, found in (
        ("schedule.2.end", "None"),
        ("schedule.1.ende", "None"),
        ("model.type", "'A'"),
        ("model", "a dict"),
        ("model.type.name", "None"),
    ):
        with pytest.raises(ValueError, match=f"mine full: {key} is {found}, not a number"):
            Choice(key, (1, 2), {}).require_key(row)
