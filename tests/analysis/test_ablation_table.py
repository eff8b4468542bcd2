"""The table of an ablation."""

from mmvanilla.analysis.ablation_rows import Row
from mmvanilla.analysis.ablation_table import ablation_table
from mmvanilla.analysis.training_state import Choice, EndedRun, RowState, Run
from tests.analysis.results import made_up_result


def state(switch, values, value=None, parameters=1234567):
    row = Row("folder/a.py", switch, {}, "")
    runs = [
        EndedRun(Run(row, seed), made_up_result({"top1": trained}, {"top1": fused}, parameters))
        for seed, (trained, fused) in enumerate(values)
    ]
    return RowState(row, value=value, runs=runs)


def test_mean_and_sample_deviation_over_the_seeds():
    states = [state("full", [(90.0, 90.0), (94.0, 93.0)]), state("plain", [(80.0, 81.0)])]
    head, _, *rows = ablation_table(states).splitlines()
    assert head.startswith("| config | switch | seeds | top1 | fused | parameters, fused |")
    assert rows == [
        "| a | `full` | 2 | 92.0 ± 2.8 | 91.5 ± 2.1 | 1,234,567 | 3 |",
        "| a | `plain` | 1 | 80.0 | 81.0 | 1,234,567 | 3 |",
    ]


def test_a_choice_has_a_column():
    choice = Choice("optim_wrapper.optimizer.lr", (0.001, 0.01), {})
    head, _, row = ablation_table([state("full", [(1.0, 1.0)], 0.01)], choice).splitlines()
    assert head.startswith("| config | switch | lr | seeds |")
    assert row.startswith("| a | `full` | 0.01 | 1 |")
