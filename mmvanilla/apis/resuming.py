"""Say what a resumed run does: what differs from the config, and which of both is used."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop

from mmvanilla.checkpoints.reading import read_checkpoint

_NUMBER = re.compile(r"^(?!best_).*_(\d+)\.pth$")  # best_*.pth have no optimiser
# What moves on while a run goes on, in the state of a schedule, and what is no setting.
_PROGRESS = {"last_step", "_global_step", "_last_value", "base_values", "verbose", "params"}


def last_checkpoint(work_dir: Path) -> Path | None:
    """Find the checkpoint of a folder that ``--resume`` goes on from; None if there is none.

    It is the one that mmengine's file ``last_checkpoint`` names, but in this folder, which may be a
    copy of another one.

    Raises:
        RuntimeError: That file, or the checkpoint that it names, is missing or damaged.
    """
    saved = sorted((p for p in work_dir.glob("*.pth") if _NUMBER.search(p.name)), key=_number)
    note = work_dir / "last_checkpoint"
    name = Path(note.read_text(errors="replace").strip()).name if note.is_file() else ""
    if not name and not saved:
        return None
    try:
        if not name:
            raise ValueError(f"{note} names no checkpoint")
        read_checkpoint(work_dir / name)
    except (OSError, ValueError) as error:
        older = [path for path in saved if _number(path) < (_number(Path(name)) or math.inf)]
        remedy = f"; go on from {older[-1]} with --resume {older[-1]}" if older else ""
        raise RuntimeError(f"cannot resume: {error}{remedy}") from error
    return work_dir / name


def _number(path: Path) -> int:
    found = _NUMBER.search(path.name)
    return int(found[1]) if found else 0


class ResumeCheckHook(Hook):
    """Compares the checkpoint that a run resumes from with the config of the run."""

    priority = "ABOVE_NORMAL"  # after DeepTrainingHook, which may change the structure

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Refuse what would not go on as it was; say what differs otherwise.

        Raises:
            ValueError: The checkpoint has no state of a training, or that of another one, or the
                training is at its end.
        """
        if not runner._resume:
            return
        parts = ["meta", "message_hub", "optimizer"]
        parts += ["param_schedulers"] if runner.param_schedulers else []
        missing = [part for part in parts if part not in checkpoint]
        if missing:
            raise ValueError(
                f"cannot resume from {runner._load_from}: it has no {', '.join(missing)}; take an "
                "epoch_*.pth or iter_*.pth, or start from its weights with load_from"
            )
        for line in _differences(runner, checkpoint):
            runner.logger.warning(f"resumed with another config: {line}")


def _differences(runner: Any, checkpoint: dict[str, Any]) -> Iterator[str]:
    unit = "iter" if isinstance(runner.train_loop, IterBasedTrainLoop) else "epoch"
    done, length = checkpoint["meta"][unit], getattr(runner, f"max_{unit}s")
    if done >= length:
        raise ValueError(
            f"nothing to train: the checkpoint is at {unit} {done}, max_{unit}s is {length}"
        )
    planned = checkpoint["message_hub"]["runtime_info"].get(f"max_{unit}s", length)
    if planned != length:
        yield f"max_{unit}s is the config's {length}, not the checkpoint's {planned}"
    # Of several optimisers, as GANs have them, mmengine's own errors speak.
    optimizer = getattr(runner.optim_wrapper, "optimizer", None)
    saved = checkpoint["optimizer"].get("param_groups")
    if optimizer is not None and saved is not None:
        yield from _compare("optimiser", "", saved, optimizer.param_groups)
    if isinstance(runner.param_schedulers, list):
        ours = [each.state_dict() for each in runner.param_schedulers]
        saved = checkpoint["param_schedulers"]
        yield from _compare("param_scheduler", "param_scheduler[{}].", saved, ours)


def _compare(what: str, place: str, saved: list[dict], ours: list[dict]) -> Iterable[str]:
    sizes = [[len(each.get("params", ())) for each in states] for states in (saved, ours)]
    pairs = list(zip(saved, ours, strict=False))
    if sizes[0] != sizes[1] or any(_are_of_different_kinds(*pair) for pair in pairs):
        raise ValueError(
            f"cannot resume with another {what}: the checkpoint has {_describe(saved)}, the config "
            f"{_describe(ours)}; take what it had, or start from its weights with load_from"
        )
    lines = {}
    for index, (old, new) in enumerate(pairs):
        for key in old.keys() & new.keys() - _PROGRESS:
            # A schedule changes a value that has an initial one.
            if old[key] != new[key] and f"initial_{key}" not in new:
                name = place.format(index) + key.removeprefix("initial_")
                lines[name] = f"{name} is the checkpoint's {old[key]}, not the config's {new[key]}"
    return lines.values()


def _are_of_different_kinds(saved: dict[str, Any], ours: dict[str, Any]) -> bool:
    # Another version of torch has other settings on one side only; Adam has the same as AdamW.
    old, new = ({k for k, v in state.items() if not callable(v)} for state in (saved, ours))
    adam = {state.get("decoupled_weight_decay") for state in (saved, ours)}
    return adam == {True, False} or not (old <= ours.keys() or new <= saved.keys())


def _describe(states: list[dict]) -> str:
    number = sum(len(state.get("params", ())) for state in states)
    names = sorted({key for state in states for key in state} - _PROGRESS)
    return f"{len(states)} groups, {number} parameters, {', '.join(names)}"
