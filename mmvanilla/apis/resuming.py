"""Say what a resumed run does: what differs from the config, and which of both is used."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop

from mmvanilla.checkpoints.reading import find_damage

_NUMBER = re.compile(r"_(\d+)\.pth$")
# What moves on while a run goes on, in the state of a schedule.
_PROGRESS = ("last_step", "_global_step", "_last_value", "base_values", "verbose")


def last_checkpoint(work_dir: Path) -> Path | None:
    """Find the checkpoint that ``--resume`` goes on from; None if there is none.

    It is the one that mmengine's file ``last_checkpoint`` names, in this folder: the folder may be
    a copy of another one.

    Args:
        work_dir: Folder of one training.

    Raises:
        RuntimeError: That file, or the checkpoint that it names, is missing or damaged.
    """
    saved = sorted((p for p in work_dir.glob("*.pth") if _NUMBER.search(p.name)), key=_number)
    note = work_dir / "last_checkpoint"
    name = Path(note.read_text(errors="replace").strip()).name if note.is_file() else ""
    if not name and not saved:
        return None
    damage = find_damage(work_dir / name) if name else f"{note} names no checkpoint"
    if damage is None:
        return work_dir / name
    older = [path for path in saved if path.name != name]
    if name and _NUMBER.search(name):
        older = [path for path in older if _number(path) < _number(work_dir / name)]
    remedy = f"; go on from {older[-1]} with --resume {older[-1]}" if older else ""
    raise RuntimeError(f"cannot resume: {damage}{remedy}")


def _number(path: Path) -> int:
    found = _NUMBER.search(path.name)
    return int(found[1]) if found else 0


class ResumeCheckHook(Hook):
    """Compares the checkpoint that a run resumes from with the config of the run."""

    priority = "HIGHEST"

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
                f"cannot resume from {runner._load_from}: it has no {', '.join(missing)}, like a "
                "file that save_best writes; take an epoch_*.pth or iter_*.pth, or start from its "
                "weights with --cfg-options load_from=FILE"
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
        yield from _compare_groups(saved, optimizer.state_dict()["param_groups"])
    if isinstance(runner.param_schedulers, list):
        yield from _compare_schedules(
            checkpoint["param_schedulers"], [each.state_dict() for each in runner.param_schedulers]
        )


def _compare_groups(saved: list[dict], ours: list[dict]) -> Iterator[str]:
    sizes = [[len(group["params"]) for group in groups] for groups in (saved, ours)]
    if sizes[0] != sizes[1] or _are_of_different_kinds(saved[0], ours[0]):
        raise ValueError(
            f"cannot resume with another optimiser: the checkpoint's has {len(saved)} groups with "
            f"{sum(sizes[0])} parameters and {_names(saved[0])}, the config's {len(ours)} groups "
            f"with {sum(sizes[1])} and {_names(ours[0])}; take the optim_wrapper that it had, or "
            "start from its weights with load_from"
        )
    for key in ours[0]:
        # A schedule changes the value itself.
        if key == "params" or f"initial_{key}" in ours[0]:
            continue
        pairs = [(a.get(key), b[key]) for a, b in zip(saved, ours, strict=True) if key in a]
        others = [(old, new) for old, new in pairs if old != new]
        if others:
            old, new = others[-1]
            name = key.removeprefix("initial_")
            yield f"{name} is the checkpoint's {old}, not the config's {new}"


def _compare_schedules(saved: list[dict], ours: list[dict]) -> Iterator[str]:
    pairs = list(zip(saved, ours, strict=False))
    if len(saved) != len(ours) or any(_are_of_different_kinds(*pair) for pair in pairs):
        raise ValueError(
            f"cannot resume with another param_scheduler: the checkpoint has {len(saved)} "
            f"schedules, the config {len(ours)}, or they are of other kinds; take those that it "
            "had, or start from its weights with load_from"
        )
    for index, (old, new) in enumerate(pairs):
        for key in old.keys() & new.keys() - set(_PROGRESS):
            if old[key] != new[key]:
                yield (
                    f"param_scheduler[{index}].{key} is the checkpoint's {old[key]}, not the "
                    f"config's {new[key]}, and the learning rate follows it"
                )


def _are_of_different_kinds(saved: Mapping[str, Any], ours: Mapping[str, Any]) -> bool:
    # Another version of torch has other settings on one side only.
    return bool(_settings(saved) - ours.keys()) and bool(_settings(ours) - saved.keys())


def _settings(state: Mapping[str, Any]) -> set[str]:
    return {key for key, value in state.items() if not callable(value)}


def _names(group: Mapping[str, Any]) -> str:
    return ", ".join(sorted(_settings(group) - {"params"}))
