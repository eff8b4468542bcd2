"""Train, resume and test a config in each of several processes: a program for torchrun.

``python -m torch.distributed.run --nproc_per_node=2 tests/engine/train_and_test.py CONFIG FOLDER``
"""

import sys
from pathlib import Path

import torch
from mmengine.dist import get_rank
from mmengine.hooks import EMAHook

from mmvanilla import get_act_lambda
from mmvanilla.apis.runners import build_test_runner, build_train_runner
from mmvanilla.engine import cpu_distributed
from tests.helpers import release


def train(config: str, folder: Path, resume: str | None = None) -> dict:
    """Train, and return the weights, their averages and λ of this process."""
    runner = build_train_runner(config, str(folder), resume=resume, launcher="pytorch")
    model = runner.train().module
    averages = [hook.ema_model.module for hook in runner.hooks if isinstance(hook, EMAHook)]
    release(runner)
    weights = [each.state_dict() for each in (model, *averages)]
    return dict(weights=weights, lambdas=[get_act_lambda(each) for each in (model, *averages)])


def main(config: str, folder: Path) -> None:
    """Train, test what was trained, and write down what each process has seen."""
    seen = train(config, folder)
    first = min(folder.glob("*_*.pth"))
    if (folder / "last_checkpoint").read_text() != str(first):
        seen["resumed"] = train(config, folder.with_name("resumed"), resume=str(first))
    tested = build_test_runner(
        config,
        (folder / "last_checkpoint").read_text(),
        work_dir=f"{folder}/test",
        launcher="pytorch",
        out=f"{folder}/out.pkl",
    )
    torch.save(dict(seen, metrics=tested.test()), folder / f"rank{get_rank()}.pth")
    cpu_distributed.finish()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
