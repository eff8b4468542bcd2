"""Train, fuse and validate one config with one seed, in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmvanilla.utils.processes import end_group, python_environment
from projects.studies.train_and_compare import Result, train_and_compare

_MODULE = "projects.studies.training_process"
_LOG = "log.txt"
_STDIN = 0


@dataclass(frozen=True)
class Request:
    """One training, as it is handed to the process.

    Attributes:
        config: Path or name of the config.
        options: Values by dotted key, which override entries of the config.
        seed: Seed of all random numbers, instead of the config's.
        folder: Folder of the run, for its log and checkpoints.
        fuse: Whether to fuse the trained model and validate it once more.
    """

    config: str
    options: dict[str, Any]
    seed: int
    folder: str
    fuse: bool = True


def train_and_validate(request: Request) -> Result:
    """Train in this process, then validate the model as trained and, if asked to, fused.

    Raises:
        RuntimeError: The training ends before λ = 1, so that its model cannot be fused.
    """
    return train_and_compare(
        request.config, request.seed, request.folder, request.options, request.fuse
    )


class RunFailed(RuntimeError):
    """A training ended without a result; the message has its last words and names its log."""


class Process:
    """A process that trains one run.

    It has a process group of its own, and ends when this process does, however that happens.

    Args:
        request: The training.
        threads: Number of threads; an ``OMP_NUM_THREADS`` in the environment comes first.
    """

    def __init__(self, request: Request, threads: int) -> None:
        self._log = Path(request.folder, _LOG)
        self._log.parent.mkdir(parents=True, exist_ok=True)
        threads = int(os.environ.get("OMP_NUM_THREADS") or threads)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", _MODULE],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=python_environment(OMP_NUM_THREADS=str(threads)),
                start_new_session=True,
            )
        self._said: bytes | None = None
        self._ending = threading.Lock()
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            # The pipe stays open: the process watches it, and ends when it closes.
            self._process.stdin.write(json.dumps(asdict(request)).encode() + b"\n")
            self._process.stdin.flush()

    def wait(self) -> Result:
        """Wait for the result.

        Raises:
            RunFailed: The training failed, or its process was ended.
        """
        with contextlib.suppress(ChildProcessError):  # it has been ended in between
            os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        said = self.end()
        if not said.strip():
            raise RunFailed(f"{self._last_words()}; see {self._log}")
        return Result(**json.loads(said))

    def end(self) -> bytes:
        """End the process, if it runs, and all that it started; return what it printed."""
        with self._ending:
            if self._said is None:
                end_group(self._process)
                assert self._process.stdin is not None and self._process.stdout is not None
                with contextlib.suppress(BrokenPipeError):
                    self._process.stdin.close()
                with self._process.stdout as stdout:
                    self._said = stdout.read()
        return self._said

    def _last_words(self) -> str:
        status = self._process.returncode
        if status < 0:
            return f"its process was ended by {signal.Signals(-status).name}"
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        return lines[-1] if lines else f"its process ended with status {status}"


def _end_with_the_parent() -> None:
    # Not by `sys.stdin`, whose lock a forked worker that loads data would wait for when it starts.
    while os.read(_STDIN, 1):  # ends when the other end of the pipe is closed
        pass
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)  # with the workers that load data
    os._exit(1)


def main() -> int:
    """Serve the one request on the standard input, and return the exit status."""
    # Libraries print: only the result may go to the standard output.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as channel:
        os.dup2(2, 1)
        request = Request(**json.loads(sys.stdin.buffer.readline()))
        threading.Thread(target=_end_with_the_parent, daemon=True).start()
        try:
            result = train_and_validate(request)
        except Exception as error:  # whatever a config, a data set or a network raises
            traceback.print_exc()
            print(f"{type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
            return 1
        channel.write(json.dumps(asdict(result)))
    return 0


if __name__ == "__main__":
    status = main()
    sys.stderr.flush()
    os._exit(status)  # destructors and the watching thread have nothing left to do
