"""Choosing, resuming, training beside each other and failing, with trainings that are made up."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest

from mmvanilla.analysis import trainings as module
from mmvanilla.analysis.ablation_rows import rows_of
from mmvanilla.analysis.page_tables import marks
from mmvanilla.analysis.train_and_compare import Result
from mmvanilla.analysis.training_process import Request, RunFailed
from mmvanilla.analysis.training_state import Choice
from mmvanilla.analysis.trainings import Trainings
from mmvanilla.utils.processes import python_environment
from tests.analysis.results import made_up_result
from tests.helpers import ROOT
from tests.idx_images import tiny_config, write_idx_images

CONFIG = """
model = dict(type="A", depth=1)
optimizer = dict(lr=0.5)
ablations = dict(full={}, deep={"model.depth": 2})
"""
CHOICE = Choice("optimizer.lr", (0.1, 0.2, 0.3), {"held_out": True})


class MadeUp:
    """Trainings without a process: the metric is a function of the request."""

    def __init__(self, monkeypatch):
        self.begun: list[str] = []
        self.most = self.running = 0
        self.broken: set[str] = set()
        self.diverging: set[float] = set()
        self.ended: list[str] = []
        self.metric_names: tuple[str, ...] = ("top1",)
        self.interrupt_at = ""
        self.lock, self.both = threading.Lock(), threading.Event()
        self.patience = 0.0  # seconds that a training waits for another one beside it
        monkeypatch.setattr(module, "Process", self.process)
        monkeypatch.setattr(module, "require_held_out", lambda table, choice: None)

    def metric(self, request: Request) -> float:
        lr = request.options.get("optimizer.lr", 0.5)
        best = 0.1 if request.options.get("model.depth") == 2 else 0.2
        if lr in self.diverging:
            return float("nan")
        return 90 - 100 * abs(lr - best) + request.seed % 1000

    def process(self, request: Request, threads: int):
        made_up, name = self, Path(request.folder).name.rpartition("_")[0]
        made_up.begun.append(name)
        if name == made_up.interrupt_at:
            raise KeyboardInterrupt

        class Process:
            def wait(self) -> Result:
                with made_up.lock:
                    made_up.running += 1
                    made_up.most = max(made_up.most, made_up.running)
                    if made_up.running == 2:
                        both.set()
                both.wait(made_up.patience)
                with made_up.lock:
                    made_up.running -= 1
                if name in made_up.broken:
                    raise RunFailed(f"no luck; see {name}")
                metrics = dict.fromkeys(made_up.metric_names, made_up.metric(request))
                return made_up_result(metrics, metrics if request.fuse else None)

            def end(self) -> None:
                made_up.ended.append(name)

        both = made_up.both
        return Process()


@pytest.fixture
def made_up(monkeypatch):
    return MadeUp(monkeypatch)


@pytest.fixture
def rows(tmp_path):
    (tmp_path / "toy.py").write_text(CONFIG)
    return rows_of(str(tmp_path / "toy.py"))


def run(rows, tmp_path, seeds=(0, 1), choice=None, jobs=1):
    lines: list[str] = []
    trainings = Trainings(rows, seeds, str(tmp_path / "runs"), choice, jobs)
    trainings.run(lines.append)
    return trainings, lines


def test_without_a_choice_each_row_is_trained_with_each_seed(made_up, rows, tmp_path):
    trainings, lines = run(rows, tmp_path)
    assert made_up.begun == ["toy_full_seed0", "toy_full_seed1", "toy_deep_seed0", "toy_deep_seed1"]
    assert [state.row.switch for state in trainings.complete] == ["full", "deep"]
    assert lines[0] == "toy full, seed 0: 60.0, fused 60.0"
    # One line of JSON each, for other programs.
    results = [path.read_text() for path in (tmp_path / "runs").glob("*/result.json")]
    assert len(results) == 4 and all(text.count("\n") == 1 for text in results)
    assert list(json.loads(results[0])["trained"]) == ["top1"]


def test_each_row_gets_the_value_that_is_best_on_the_held_out_data(made_up, rows, tmp_path):
    trainings, lines = run(rows, tmp_path, choice=CHOICE)
    assert [state.value for state in trainings.states] == [0.2, 0.1]
    choosing = [name for name in made_up.begun if "_lr" in name]
    assert choosing == [f"toy_{row}_lr{lr}" for row in ("full", "deep") for lr in (0.1, 0.2, 0.3)]
    assert "toy full: chose lr=0.2 (0.1: 80.0, 0.2: 90.0, 0.3: 80.0)" in lines
    edge = "; it is the smallest of the grid, and a wider grid may have a better one"
    assert f"toy deep: chose lr=0.1 (0.1: 90.0, 0.2: 80.0, 0.3: 70.0){edge}" in lines
    # The seeds are trained with it, and the choice has a seed of its own.
    assert [ended.trained for ended in trainings.states[1].runs] == [90.0, 91.0]
    # One row is finished before the next begins.
    assert made_up.begun.index("toy_full_seed1") < made_up.begun.index("toy_deep_lr0.1")


def test_the_choice_validates_elsewhere_and_fuses_nothing(rows, tmp_path):
    from mmvanilla.analysis.training_state import Run

    choosing = Run(rows[1], 2, 0.1, choosing=True).request(str(tmp_path), CHOICE)
    assert choosing.options == {"model.depth": 2, "optimizer.lr": 0.1, "held_out": True}
    final = Run(rows[1], 0, 0.1).request(str(tmp_path), CHOICE)
    assert final.options == {"model.depth": 2, "optimizer.lr": 0.1}
    assert (choosing.fuse, final.fuse) == (False, True)


def test_goes_on_where_it_was_stopped(made_up, rows, tmp_path):
    made_up.interrupt_at = "toy_full_seed1"
    with pytest.raises(KeyboardInterrupt):
        run(rows, tmp_path, choice=CHOICE)
    before, made_up.begun, made_up.interrupt_at = made_up.begun, [], ""
    assert len(before) == 5
    trainings, lines = run(rows, tmp_path, choice=CHOICE)
    assert made_up.begun[0] == "toy_full_seed1" and len(trainings.complete) == 2
    assert not set(before[:-1]) & set(made_up.begun)
    assert lines[0] == "toy full, 0.1 on held-out data: 80.0 (from before)"
    # Again, nothing is left to do; the order of the results is that of the seeds.
    made_up.begun = []
    trainings, _ = run(rows, tmp_path, choice=CHOICE)
    assert made_up.begun == []
    assert [ended.run.seed for ended in trainings.states[0].runs] == [0, 1]
    # More seeds need no other choice.
    run(rows, tmp_path, seeds=(0, 1, 7), choice=CHOICE)
    assert made_up.begun == ["toy_full_seed7", "toy_deep_seed7"]


def test_a_value_with_which_the_training_diverges_is_not_chosen(made_up, rows, tmp_path):
    made_up.diverging = {0.1}
    _, lines = run(rows, tmp_path, choice=CHOICE)
    assert "toy deep: chose lr=0.2 (0.1: nan, 0.2: 80.0, 0.3: 70.0)" in lines


def test_what_was_changed_is_trained_anew(made_up, rows, tmp_path):
    run(rows, tmp_path, seeds=[0])
    made_up.begun = []
    (tmp_path / "toy.py").write_text(CONFIG.replace('"model.depth": 2', '"model.depth": 3'))
    run(rows_of(str(tmp_path / "toy.py")), tmp_path, seeds=[0])
    assert made_up.begun == ["toy_deep_seed0"]
    made_up.begun = []
    run(rows, tmp_path, seeds=[0, 5])
    assert made_up.begun == ["toy_full_seed5", "toy_deep_seed5"]
    (tmp_path / "toy.py").write_text(CONFIG + "randomness = dict(deterministic=True)\n")
    made_up.begun = []
    run(rows_of(str(tmp_path / "toy.py")), tmp_path, seeds=[0])
    assert made_up.begun == ["toy_full_seed0", "toy_deep_seed0"]


def test_as_many_as_asked_for_run_beside_each_other(made_up, rows, tmp_path):
    made_up.patience = 60.0
    trainings, _ = run(rows, tmp_path, choice=CHOICE, jobs=2)
    assert made_up.most == 2 and len(trainings.complete) == 2
    assert sorted(made_up.begun) == sorted(set(made_up.begun)) and len(made_up.begun) == 10


def test_a_failed_run_is_named_and_the_others_go_on(made_up, rows, tmp_path):
    made_up.broken = {"toy_full_lr0.3", "toy_deep_seed0"}
    trainings, lines = run(rows, tmp_path, choice=CHOICE)
    # Without one of its values a row cannot choose.
    assert trainings.failures == ["toy full, 0.3 on held-out data", "toy deep, seed 0"]
    assert "failed: toy deep, seed 0: no luck; see toy_deep_seed0" in lines
    assert trainings.complete == [] and len(trainings.states[1].runs) == 1
    made_up.broken, made_up.begun = set(), []
    assert len(run(rows, tmp_path, choice=CHOICE)[0].complete) == 2
    assert sorted(made_up.begun) == [
        "toy_deep_seed0",
        "toy_full_lr0.3",
        "toy_full_seed0",
        "toy_full_seed1",
    ]


def test_an_interruption_ends_the_trainings(made_up, rows, tmp_path):
    made_up.interrupt_at = "toy_full_seed1"
    with pytest.raises(KeyboardInterrupt):
        run(rows, tmp_path, jobs=2)
    assert made_up.ended == ["toy_full_seed0"]


def test_no_job_at_all_only_reads_what_is_there(made_up, rows, tmp_path):
    run(rows[:1], tmp_path)
    made_up.begun = []
    trainings, _ = run(rows, tmp_path, jobs=0)
    assert made_up.begun == [] and [s.row.switch for s in trainings.complete] == ["full"]


def test_wrong_numbers_are_refused_before_the_work(rows, tmp_path):
    for arguments, message in (
        (dict(seeds=[0, 1, 1]), "seeds 1 given twice"),
        (dict(seeds=[]), "needs a seed, found none"),
        (dict(jobs=-1), "jobs must be at least 0, found -1"),
        (dict(choice=Choice("optimizer.lrr", (1, 2), {})), "toy full: optimizer.lrr is None"),
    ):
        with pytest.raises(ValueError, match=message):
            Trainings(rows, **{"seeds": [0], "work_dir": str(tmp_path / "runs"), **arguments})
    assert not (tmp_path / "runs").exists()


def test_a_damaged_result_is_named(made_up, rows, tmp_path):
    run(rows, tmp_path, seeds=[0])
    path = next((tmp_path / "runs").glob("*full*/result.json"))
    path.write_text("{")
    with pytest.raises(ValueError, match=r"result.json is not a result.*; remove it"):
        run(rows, tmp_path, seeds=[0])


def test_results_of_another_machine_are_not_trained_again(made_up, rows, tmp_path):
    store = str(tmp_path / "results.json")
    Trainings(rows, [0], str(tmp_path / "there"), jobs=1, store=store).run()
    assert len(json.loads(Path(store).read_text())) == 2
    made_up.begun = []
    here = Trainings(rows, [0, 1], str(tmp_path / "here"), jobs=1, store=store)
    here.run()
    assert made_up.begun == ["toy_full_seed1", "toy_deep_seed1"] and len(here.complete) == 2
    assert len(json.loads(Path(store).read_text())) == 4
    # What was trained without the file comes into it, too.
    late = str(tmp_path / "late.json")
    Trainings(rows, [0], str(tmp_path / "there"), jobs=0, store=late).run()
    assert len(json.loads(Path(late).read_text())) == 2


def test_a_choice_by_several_metrics_is_refused_at_the_first_result(made_up, rows, tmp_path):
    made_up.metric_names = ("mIoU", "mAcc")
    with pytest.raises(ValueError, match="compares one metric, found mIoU, mAcc; leave one in"):
        run(rows, tmp_path, choice=CHOICE)
    assert len(made_up.begun) == 1
    # Without a choice they are all kept.
    trainings, lines = run(rows, tmp_path, seeds=[0])
    assert lines[0] == "toy full, seed 0: mIoU 60.0 mAcc 60.0, fused mIoU 60.0 mAcc 60.0"


@pytest.fixture
def tool(run_tool):
    return partial(run_tool, "run_ablations")


def test_tool_lists_the_rows(tool, rows):
    status, output = tool("toy.py", "--rows")
    assert (status, output.out) == (0, "toy full\ntoy deep  --cfg-options model.depth=2\n")


def test_tool_chooses(tool, rows, made_up):
    choice = ("--choose", "optimizer.lr", "1e-1", "0.2", "--choose-on", "held_out=True")
    status, output = tool("toy.py", "--seeds", "0", "1", *choice)
    assert status == 0, output.err
    assert "| toy | `full` | 0.2 | 2 | 90.5 ± 0.7 | 90.5 ± 0.7 | 1,000 | 3 |" in output.out
    status, output = tool("toy.py", "--seeds", "0", "9", *choice, "--jobs", "0")
    assert status == 0 and "not all of their runs are there: toy full, toy deep" in output.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--choose", "optimizer.lr", "1", "2"], "--choose needs --choose-on"),
        (["--choose-on", "a=1"], "--choose-on needs --choose"),
        (["--choose", "optimizer.lr", "1", "b", "--choose-on", "a=1"], "numbers, found 1 b"),
        (["--choose", "optimizer.lr", "1", "--choose-on", "a=1"], "two different numbers"),
        (["--write", "nowhere.md"], "no page at nowhere.md"),
        (["--switches", "n1"], "unknown switch 'n1'; choose from full, deep"),
    ],
)
def test_tool_refuses_what_it_cannot_do_before_the_work(tool, rows, made_up, arguments, message):
    status, output = tool("toy.py", *arguments)
    assert status == 1 and output.err.startswith("error: ") and message in output.err
    assert made_up.begun == []


@pytest.mark.exhaustive
@pytest.mark.toolbox("mmpretrain")
def test_tool_chooses_really_and_goes_on_after_sigterm(tmp_path):
    data = write_idx_images(tmp_path / "data", num_train=120)
    (tmp_path / "tiny.py").write_text(tiny_config(data, full={}, n1={"model.backbone.act_num": 1}))
    command = [sys.executable, str(ROOT / "tools" / "run_ablations.py"), "tiny.py"]
    command += ["--seeds", "0", "1", "--jobs", "2", "--work-dir", "runs"]
    command += ["--choose", "optim_wrapper.optimizer.lr", "1e-3", "1e-2", "--choose-on"]
    held_out = "val_dataloader.dataset."
    command += [f"{held_out}split=train", f"{held_out}test_mode=False", f"{held_out}indices=-40"]
    options = dict(stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=python_environment())
    process = subprocess.Popen(command, **options)
    assert any("on held-out data" in line for line in process.stdout)
    process.send_signal(signal.SIGTERM)
    with process.stdout as rest:
        assert "| tiny |" not in rest.read()
    assert process.wait() == 128 + signal.SIGTERM
    done = subprocess.run(command, stderr=subprocess.PIPE, **options)
    assert done.returncode == 0, done.stderr
    assert "(from before)" in done.stdout
    rows = [line for line in done.stdout.splitlines() if line.startswith("| tiny |")]
    assert [row.split(" | ")[1] for row in rows] == ["`full`", "`n1`"]
    assert len(list((tmp_path / "runs").glob("*/result.json"))) == 8


@pytest.mark.slow
@pytest.mark.toolbox("mmpretrain")
def test_tool_trains_fuses_reports_and_writes_the_page(tool, tmp_path):
    data = write_idx_images(tmp_path / "data")
    broken = {"model.backbone.act_num": -1}
    (tmp_path / "tiny.py").write_text(tiny_config(data, full={}, broken=broken))
    page = tmp_path / "page.md"
    page.write_text("Before.\n{}\n{}\nBehind.\n".format(*marks("ablations")))
    arguments = ("tiny.py", "--seeds", "0", "--jobs", "2", "--work-dir", "runs", "--write", page)
    status, output = tool(*arguments)
    assert status == 1
    assert "tiny full, seed 0: " in output.out
    assert "failed: tiny broken, seed 0: ValueError: tiny.py: the model cannot" in output.out
    assert "act_num must be an integer of at least 0, found -1" in output.out
    (error,) = [line for line in output.err.splitlines() if line.startswith("error: ")]
    assert error.startswith("error: 1 runs failed (tiny broken, seed 0), with their logs in runs")
    assert "| tiny |" not in page.read_text()
    # Nothing is trained again for what is there, and the page gets it.
    status, output = tool(*arguments, "--switches", "full")
    assert status == 0, output.err
    assert "(from before)" in output.out
    (row,) = [line for line in page.read_text().splitlines() if line.startswith("| tiny |")]
    assert row.startswith("| tiny | `full` | 1 | ") and row.endswith(" | 5 |")
    assert page.read_text().startswith("Before.\n") and page.read_text().endswith("\nBehind.\n")
