"""What all tests share: markers that skip, fixed seeds, and no network."""

import os
import random
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS, DefaultScope
from mmengine.visualization import Visualizer

from mmvanilla.__main__ import _load as load_file
from mmvanilla.utils.dependencies import TOOLBOXES, has_toolbox
from tests.helpers import ROOT

if has_toolbox("torchvision"):
    import mmvanilla.ops  # noqa: F401  before any test imports a toolbox, as our tools do

try:
    import hypothesis
except ImportError:  # tests that need it skip themselves
    pass
else:
    # The same examples every time, and no clock: the machine may be busy.
    hypothesis.settings.register_profile("ours", deadline=None, derandomize=True, max_examples=50)
    hypothesis.settings.load_profile("ours")

# Before any test imports ONNX Runtime, which would start a thread that reports its use by network.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

# Small models: more threads than two only get in each other's way, and pytest-xdist has processes.
torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else min(2, os.cpu_count() or 1))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the command line ask for every test there is."""
    parser.addoption("--all", action="store_true", help="also run the tests marked exhaustive")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests marked exhaustive, unless they are asked for."""
    if config.getoption("--all") or "exhaustive" in config.getoption("markexpr"):
        return
    left_out = [item for item in items if item.get_closest_marker("exhaustive")]
    if left_out:
        items[:] = [item for item in items if not item.get_closest_marker("exhaustive")]
        config.hook.pytest_deselected(items=left_out)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what this machine cannot run, saying what is missing."""
    for mark in item.iter_markers("toolbox"):
        for name in mark.args:
            if name not in TOOLBOXES:
                raise pytest.UsageError(f"{item.nodeid}: unknown toolbox {name!r}")
            if not has_toolbox(name):
                pytest.skip(f"{name} is not installed")
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("no CUDA device")


@pytest.fixture
def run_tool(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Callable[..., tuple[int, Any]]]:
    """Run a tool in this process, in an empty folder: its status, and what it printed."""
    monkeypatch.chdir(tmp_path)

    def run(name: str, *arguments: object) -> tuple[int, Any]:
        try:
            status = load_file(ROOT / "tools" / f"{name}.py").main([*map(str, arguments)])
        except SystemExit as ended:  # of argparse
            status = ended.code
        return status, capsys.readouterr()

    yield run
    for logger in MMLogger._instance_dict.values():  # they would write to what capsys closes
        for handler in list(logger.handlers):
            handler.close()
            logger.removeHandler(handler)


@pytest.fixture(autouse=True)
def _fixed_seeds() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _own_instances() -> Iterator[None]:
    """Forget the default scope and the visualizers of a test: mmengine takes the last ones."""
    yield
    kinds = [DefaultScope, Visualizer]
    for kind in kinds:
        kinds.extend(kind.__subclasses__())
        kind._instance_dict.clear()


@pytest.fixture(autouse=True)
def _own_layer_decay() -> Iterator[None]:
    """Put our constructor back under the name that MMPose takes when it is imported."""
    name = "LayerDecayOptimWrapperConstructor"
    ours = OPTIM_WRAPPER_CONSTRUCTORS.module_dict.get(name)
    yield
    if ours is not None:
        OPTIM_WRAPPER_CONSTRUCTORS.module_dict[name] = ours


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse connections that leave the machine; gloo and file sockets stay."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        host = address[0] if isinstance(address, tuple) else "localhost"
        if self.family != socket.AF_UNIX and host not in ("localhost", "127.0.0.1", "::1"):
            raise RuntimeError(f"a test tried to connect to {host}: tests use no network")
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", guarded)
