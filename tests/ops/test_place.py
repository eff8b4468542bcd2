"""Where the stand-in takes the place of MMCV's compiled operators, and what it refuses."""

import importlib.machinery
import os
import re
import subprocess
import sys
from pathlib import Path

import mmcv
import mmcv.ops as mmcv_ops
import pytest
import torch

import mmvanilla.ops
from tests.helpers import ROOT
from tests.ops.common import ours as ours


class TestRefused:
    def test_a_refused_operator_says_its_name_its_use_and_how_to_compile(self):
        with pytest.raises(NotImplementedError) as raised:
            mmvanilla.ops.nms_rotated(torch.zeros(1, 5))
        text = str(raised.value)
        assert "nms_rotated, an operator of MMCV for rotated boxes" in text
        assert "MMCV_WITH_OPS=1 pip install --no-build-isolation" in text

    def test_every_operator_of_mmcv_is_given_or_has_a_use(self):
        folder = Path(mmcv_ops.__file__).parent
        text = " ".join(path.read_text() for path in folder.glob("*.py"))
        names = set(re.findall(r"ext_module\.(\w+)", text))
        assert len(names) > 90
        for name in names:
            operator = getattr(mmvanilla.ops, name)
            if getattr(operator, "func", None) is mmvanilla.ops._refuse:
                with pytest.raises(NotImplementedError, match="(?!.*other networks)"):
                    operator()

    @pytest.mark.usefixtures("ours")
    def test_roi_align_by_maxima_is_refused(self):
        with pytest.raises(NotImplementedError, match="pool_mode='max'"):
            mmcv_ops.roi_align(torch.rand(1, 1, 4, 4), torch.zeros(1, 5), 2, 1.0, 0, "max")


@pytest.fixture
def without_ops(tmp_path):
    """Return the folder of an mmcv without compiled operators, and a way to run Python with it."""
    copy = tmp_path / "mmcv"
    copy.mkdir()
    for path in Path(mmcv.__file__).parent.iterdir():
        if not path.name.startswith("_ext"):
            (copy / path.name).symlink_to(path)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join([str(tmp_path), str(ROOT)])
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
        )

    return copy, run


class TestTakingThePlace:
    @pytest.mark.toolbox("mmdet")
    def test_our_tools_do_where_nothing_is_and_mmvanilla_alone_does_not(self, without_ops):
        folder, run = without_ops
        script = """if True:
            import sys
            import mmvanilla
            try:
                import mmcv.ops
            except ModuleNotFoundError as error:
                print(error)
            from mmvanilla.apis.config import load_config
            load_config("shapes/maskrcnn_vanillanet_shapes.py")
            import mmcv.ops
            from mmdet.apis import DetInferencer
            print(sys.modules["mmcv._ext"] is mmvanilla.ops, mmcv.ops.get_compiler_version())
        """
        lines = run("-c", script).stdout.splitlines()
        assert lines[0] == "No module named 'mmcv._ext'"
        assert lines[-1].startswith("True not compiled: torchvision ")

    def test_a_broken_compiled_module_keeps_its_own_error(self, without_ops):
        folder, run = without_ops
        (folder / f"_ext{importlib.machinery.EXTENSION_SUFFIXES[0]}").write_bytes(b"not a library")
        script = """if True:
            import runpy
            import mmvanilla.ops
            try:
                runpy.run_module("mmvanilla.ops", run_name="__main__")
            except SystemExit as error:
                print(error)
            import mmcv.ops
        """
        done = run("-c", script)
        assert done.stdout.startswith("error: MMCV has compiled operators, in ")
        assert done.stderr.splitlines()[-1].startswith("ImportError: ")
        assert "_ext" in done.stderr.splitlines()[-1]

    def test_the_command_serves_programs_that_import_nothing_of_ours(self, without_ops):
        folder, run = without_ops
        done = run("-m", "mmvanilla.ops")
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"writing {folder / '_ext.py'}\n"
        script = """if True:
            import sys, torch, mmcv.ops
            print(len(mmcv.ops.nms(torch.tensor([[0., 0, 2, 2]] * 2), torch.rand(2), 0.5)[1]))
            print("mmvanilla" in sys.modules, sys.modules["mmcv._ext"].__file__)
        """
        assert run("-c", script).stdout.splitlines() == ["1", f"False {folder / '_ext.py'}"]
