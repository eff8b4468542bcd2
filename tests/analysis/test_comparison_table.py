"""Networks side by side: metrics, what fusing changed, sizes, latency."""

from mmvanilla.analysis.ablation_rows import Row
from mmvanilla.analysis.comparison_table import comparison_table
from mmvanilla.analysis.timing import summarise
from mmvanilla.analysis.training_state import EndedRun, RowState, Run
from tests.analysis.results import made_up_result


def state(config, *results):
    row = Row(config, "", {}, "")
    runs = [EndedRun(Run(row, seed), result) for seed, result in enumerate(results)]
    return RowState(row, runs=runs)


def test_a_line_for_each_network_with_the_headline_metrics_of_all():
    detector = {"coco/bbox_mAP": 0.8, "coco/bbox_mAP_50": 0.9, "coco/segm_mAP": 0.7}
    states = [
        state(
            "garments/detector.py", made_up_result(detector, {**detector, "coco/bbox_mAP": 0.81})
        ),
        state(
            "segmenter.py",
            made_up_result({"mIoU": 70.0, "aAcc": 9.0}, {"mIoU": 70.0, "aAcc": 1.0}),
            made_up_result({"mIoU": 72.5, "aAcc": 9.0}, {"mIoU": 72.0, "aAcc": 9.0}),
        ),
    ]
    head, _, *rows = comparison_table(states).splitlines()
    assert head == (
        "| network | seeds | box mAP | mask mAP | mIoU, % | changed by fusing | parameters, M "
        "| MACs, M | backbone, M | training, CPU minutes |"
    )
    assert rows == [
        "| detector | 1 | 0.810 | 0.700 | – | 0.010 | 0.00 | 2.0 | 0.5 | 2.0 |",
        "| segmenter | 2 | – | – | 71.0 ± 1.4 | 0.500 | 0.00 | 2.0 | 0.5 | 2.0 |",
    ]


def test_other_metrics_and_latency():
    states = [state("a.py", made_up_result({"f1": 50.0}, {"f1": 50.0}))]
    head, rule, row = comparison_table(states, {"a": summarise([1.0, 3.0])}).splitlines()
    assert "| f1 |" in head and "| backbone, M | latency, ms | training" in head
    assert row == "| a | 1 | 50.0 | 0.000 | 0.00 | 2.0 | 0.5 | 2.00 | 2.0 |"
    assert head.count("|") == rule.count("|") == row.count("|")
