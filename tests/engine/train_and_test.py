"""Train and test a config in each of several processes: a program for torchrun.

``python -m torch.distributed.run --nproc_per_node=2 tests/engine/train_and_test.py CONFIG FOLDER``
"""

import sys
from pathlib import Path

import torch
from mmengine.dist import get_rank

from mmvanilla.apis.runners import build_test_runner, build_train_runner, release
from mmvanilla.engine import cpu_distributed


def main(config: str, folder: str) -> None:
    """Train, test what was trained, and write down the weights and what was measured."""
    trained = build_train_runner(config, work_dir=folder, launcher="pytorch")
    trained.train()
    release(trained)
    last = Path((Path(folder) / "last_checkpoint").read_text())
    tested = build_test_runner(
        config, str(last), work_dir=f"{folder}/test", launcher="pytorch", out=f"{folder}/out.pkl"
    )
    seen = dict(metrics=tested.test(), weights=trained.model.module.state_dict())
    torch.save(seen, Path(folder) / f"rank{get_rank()}.pth")
    cpu_distributed.finish()


if __name__ == "__main__":
    main(*sys.argv[1:])
