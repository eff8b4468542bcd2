"""The set-up script, run whole with an interpreter that only pretends to install and compile."""

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap

import pytest

from tests.helpers import ROOT

FAKE_PYTHON = """\
    #!{python} -S
    import json, os, sys, zipfile
    arguments = sys.argv[1:]
    log = os.environ["FAKE_LOG"]
    fail = os.environ.get("FAKE_FAIL", "")
    def note(text):
        with open(log, "a") as file:
            file.write(text + "\\n")
    if arguments[0] == "-c":
        if "CUDA_HOME" in arguments[1]:
            print("a line of noise")
            print(os.environ["FAKE_PROBE"])
        elif "mmcv.ops" in arguments[1]:
            note("check")
            if fail == "import":
                sys.exit("ImportError: _ext.so: undefined symbol: _ZN3c10")
        elif "CFLAGS" in arguments[1]:
            print("-g -O3")
        else:
            print(os.environ.get("FAKE_VERSION", "3 11"))
    elif arguments[:3] == ["-m", "pip", "wheel"]:
        names = ["MMCV_WITH_OPS", "FORCE_CUDA", "CUDA_VISIBLE_DEVICES", "TORCH_CUDA_ARCH_LIST"]
        names += ["CFLAGS", "CXXFLAGS"]
        note("wheel " + json.dumps({{name: os.environ.get(name) for name in names}}))
        note("options " + " ".join(arguments))
        print("the compiler complains")
        folder = arguments[arguments.index("--wheel-dir") + 1]
        name = arguments[-1].replace("-", "_").replace("==", "-") + "-cp311-cp311-linux_x86_64.whl"
        with zipfile.ZipFile(os.path.join(folder, name), "w") as archive:
            if fail != "no_ops":
                archive.writestr("mmcv/_ext.cpython-311-x86_64-linux-gnu.so", "")
            archive.writestr("mmcv/__init__.py", "")
        if fail == "compile":
            sys.exit(1)
    else:
        note(" ".join(arguments[1:]))
        if fail.startswith("install:") and fail.split(":")[1] in arguments:
            sys.exit(1)
    """
CPU = {
    "torch": "2.10.0+cu128",
    "cuda": "12.8",
    "arch": None,
    "cuda_home": None,
    "tag": "cp311",
    "platform": "linux-x86_64",
}
FOLDER = "torch2.10.0+cu128-cp311-cpu"
WHEEL = "onedl_mmcv-2.3.6-cp311-cp311-linux_x86_64.whl"


@pytest.fixture
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "requirements")
    names = ("common", "interpreters", "mmcv_wheel", "install")
    yield {name: importlib.import_module(name) for name in names}
    for name in names:
        del sys.modules[name]


@pytest.fixture
def machine(tmp_path, monkeypatch, scripts):
    """Return a machine with an empty cache, on which environments can be set up."""

    class Machine:
        cache = tmp_path / "cache" / "mmvanilla" / "wheels"
        log = tmp_path / "log"

        def venv(self, name="venv"):
            binaries = tmp_path / name / "bin"
            binaries.mkdir(parents=True)
            python = binaries / "python"
            python.write_text(textwrap.dedent(FAKE_PYTHON).format(python=sys.executable))
            python.chmod(0o755)
            return binaries.parent

        def set_up(self, venv, stack="fork", fail="", probe=CPU, **variables):
            self.log.write_text("")
            monkeypatch.setenv("FAKE_FAIL", fail)
            monkeypatch.setenv("FAKE_PROBE", json.dumps(probe))
            for name, value in variables.items():
                monkeypatch.setenv(name, value)
            return scripts["install"].main([stack, str(venv)])

        def calls(self, start=""):
            lines = self.log.read_text().splitlines()
            return [line for line in lines if line.startswith(start)]

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("FAKE_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("CXX", sys.executable)  # any program counts as a compiler here
    return Machine()


def stamp_of(venv):
    return venv / "mmvanilla-setup.json"


def test_order_of_a_first_set_up(machine, capsys):
    venv = machine.venv()
    assert machine.set_up(venv) == 0
    installs = [call.split(" ", 2)[2] for call in machine.calls("pip install")]
    assert "--constraint" in installs[0]
    assert " torch " in installs[0]
    assert installs[1].endswith(str(machine.cache / FOLDER / WHEEL))
    assert "--no-deps" in installs[1]
    assert "fork.txt" in installs[2]
    assert "dev.txt" in installs[2]
    # What asks for packages that clash with the pinned ones must not get them.
    assert installs[3].endswith("--no-deps -r " + str(ROOT / "requirements" / "no-deps.txt"))
    assert installs[4].endswith(f"--no-deps --editable {ROOT}")
    assert machine.calls()[-1] == "check"
    assert json.loads(stamp_of(venv).read_text())["stack"] == "fork"
    assert capsys.readouterr().out.splitlines()[-1] == f"[setup] {venv} is ready"


def test_nothing_is_done_twice(machine, capsys):
    venv = machine.venv()
    machine.set_up(venv)
    assert machine.set_up(venv) == 0
    assert machine.calls() == []
    assert capsys.readouterr().out.splitlines()[-1] == f"[setup] {venv} is up to date"


def test_another_clone_compiles_nothing(machine):
    machine.set_up(machine.venv("one"))
    assert len(machine.calls("wheel")) == 1
    assert machine.set_up(machine.venv("two")) == 0
    assert machine.calls("wheel") == []
    assert any(WHEEL in call for call in machine.calls("pip install"))


@pytest.mark.parametrize(
    "change", [{"torch": "2.11.0"}, {"tag": "cp312"}, {"platform": "linux-aarch64"}]
)
def test_a_wheel_of_another_torch_python_or_platform_is_not_taken(machine, change):
    machine.set_up(machine.venv("one"))
    machine.set_up(machine.venv("two"), probe={**CPU, **change})
    assert len(machine.calls("wheel")) == 1


def test_how_mmcv_is_compiled(machine):
    machine.set_up(machine.venv(), FORCE_CUDA="1", CFLAGS="-march=native", CXXFLAGS="")
    (variables,) = machine.calls("wheel")
    # FORCE_CUDA left over in the shell must not turn a build for the CPU into one for CUDA.
    assert json.loads(variables.split(" ", 1)[1]) == {
        "MMCV_WITH_OPS": "1",
        "FORCE_CUDA": None,
        "CUDA_VISIBLE_DEVICES": "",
        "TORCH_CUDA_ARCH_LIST": None,
        "CFLAGS": "-march=native -g0",
        "CXXFLAGS": "-g -O3 -g0",
    }
    (options,) = machine.calls("options")
    for option in ("--no-build-isolation", "--no-cache-dir", "--no-deps", "--no-binary onedl-mmcv"):
        assert option in options
    assert options.endswith(" onedl-mmcv==2.3.6")
    assert "the compiler complains" in (machine.cache / FOLDER / "build.log").read_text()


def test_original_stack_has_its_own_mmcv(machine):
    venv = machine.venv()
    machine.set_up(venv, stack="original")
    (options,) = machine.calls("options")
    assert options.endswith(" mmcv==2.1.0")
    assert any("original.txt" in call for call in machine.calls("pip install"))
    # The same folder for the other stack afterwards is not taken for up to date.
    machine.set_up(venv, stack="fork")
    assert any("fork.txt" in call for call in machine.calls("pip install"))


@pytest.mark.parametrize(
    "fail",
    ["install:torch", "compile", "no_ops", "install:-r", "install:--editable", "import"],
)
def test_a_failure_leaves_no_stamp_and_the_next_run_finishes(machine, fail, capsys):
    venv = machine.venv()
    machine.set_up(venv)  # an older stamp must not survive either
    stamp_of(venv).write_text(json.dumps({"stack": "fork", "key": "old"}))
    for wheel in machine.cache.rglob("*.whl"):
        wheel.unlink()
    assert machine.set_up(venv, fail=fail) == 1
    assert not stamp_of(venv).exists()
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    left = [path.name for path in machine.cache.rglob("*") if path.name.startswith(".building")]
    assert left == []
    assert machine.set_up(venv) == 0
    assert stamp_of(venv).exists()


@pytest.mark.parametrize("fail", ["compile", "no_ops"])
def test_a_bad_build_is_not_kept(machine, fail, capsys):
    assert machine.set_up(machine.venv(), fail=fail) == 1
    assert list(machine.cache.rglob("*.whl")) == []
    error = capsys.readouterr().err
    assert str(machine.cache / FOLDER / "build.log") in error
    if fail == "compile":
        assert "the compiler complains" in error


def test_ops_that_do_not_load_name_the_folder_to_delete(machine, capsys):
    assert machine.set_up(machine.venv(), fail="import") == 1
    error = capsys.readouterr().err
    assert "undefined symbol: _ZN3c10" in error
    assert f"Delete the folder {machine.cache / FOLDER} and run again" in error
    # What is broken is installed over again, although pip finds its version there.
    assert any("--force-reinstall" in call for call in machine.calls("pip install"))


def test_no_compiler(machine, capsys):
    assert machine.set_up(machine.venv(), CXX="no-such-compiler") == 1
    assert "error: no C++ compiler found" in capsys.readouterr().err
    assert machine.calls("wheel") == []


@pytest.mark.parametrize(
    ("stack", "version"), [("fork", "3 9"), ("fork", "3 14"), ("original", "3 12")]
)
def test_python_without_wheels(machine, capsys, stack, version):
    assert machine.set_up(machine.venv(), stack=stack, FAKE_VERSION=version) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: Python {version.replace(' ', '.')} found, but the {stack}")
    assert "make env PYTHON=" in line
    assert machine.calls() == []


def test_folder_that_is_no_environment_is_left_alone(machine, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    assert machine.set_up(tmp_path / "mine") == 1
    assert "holds files but no virtual environment" in capsys.readouterr().err
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"


def test_failed_venv_leaves_no_folder(machine, scripts, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    assert machine.set_up(tmp_path / "new") == 1
    assert "python3-venv" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


FAKE_VENV = """\
    #!{python}
    # Stands for a Python whose `-m venv` is killed when only half of it is there.
    import os, signal, sys
    folder = sys.argv[-1]
    os.makedirs(os.path.join(folder, "bin"))
    open(os.path.join(folder, "pyvenv.cfg"), "w").close()
    os.symlink(sys.executable, os.path.join(folder, "bin", "python"))
    os.kill(os.getppid(), signal.SIGKILL)
    """


def test_killed_while_the_environment_is_made_it_is_made_anew(
    machine, scripts, monkeypatch, tmp_path, capsys
):
    killer = tmp_path / "killer"
    killer.write_text(textwrap.dedent(FAKE_VENV).format(python=sys.executable))
    killer.chmod(0o755)
    script = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'requirements')!r})\n"
        f"import install; install.fitting_python = lambda *args: {str(killer)!r}\n"
        f"install.main(['fork', {str(tmp_path / 'venv')!r}])"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == -signal.SIGKILL
    assert (tmp_path / "venv" / "bin" / "python").exists()

    def make(command):
        assert command[1:3] == ["-m", "venv"] and not (tmp_path / "venv").exists()
        machine.venv()

    real = scripts["install"].run
    monkeypatch.setattr(
        scripts["install"], "run", lambda command: (make if "venv" in command else real)(command)
    )
    monkeypatch.setattr(scripts["install"], "check_python", lambda stack, version: None)
    assert machine.set_up(tmp_path / "venv") == 0
    assert "is incomplete, since a set-up was killed" in capsys.readouterr().out
    assert stamp_of(tmp_path / "venv").exists()


class TestChoiceOfAnInterpreter:
    """`make` without PYTHON takes one that fits from PATH; here they only tell a version."""

    @pytest.fixture
    def folders(self, tmp_path, monkeypatch):
        """Return a function that puts folders with interpreters of these versions on PATH."""

        def put(*interpreters):
            folders = []
            for number, versions in enumerate(interpreters):
                folders.append(tmp_path / f"bin{number}")
                folders[-1].mkdir()
                for name, version in versions.items():
                    python = folders[-1] / name
                    # A shim of pyenv exists, but ends with 127 if no version is switched on.
                    tells = f"echo {version}" if version else "exit 127"
                    python.write_text(f"#!/bin/sh\n{tells}\n")
                    python.chmod(0o755)
            monkeypatch.setenv("PATH", os.pathsep.join(map(str, folders)))
            return folders

        return put

    @pytest.fixture
    def choose(self, scripts, monkeypatch):
        def chosen(stack, version, search=True):
            monkeypatch.setattr(sys, "version_info", (*version, 0, "final", 0))
            return scripts["interpreters"].fitting_python(stack, search)

        return chosen

    @pytest.mark.parametrize(
        ("stack", "version"), [("fork", (3, 10)), ("fork", (3, 13)), ("original", (3, 11))]
    )
    def test_one_that_fits_is_not_replaced(self, folders, choose, capsys, stack, version):
        folders({"python3.12": "3 12", "python3.11": "3 11"})
        assert choose(stack, version) == sys.executable
        assert capsys.readouterr().out == ""

    @pytest.mark.parametrize(
        ("stack", "version", "expected"),
        [("fork", (3, 9), "python3.12"), ("original", (3, 13), "python3.11")],
    )
    def test_the_newest_that_fits_is_taken_and_named(
        self, folders, choose, capsys, stack, version, expected
    ):
        (folder,) = folders({"python3.10": "3 10", "python3.11": "3 11", "python3.12": "3 12"})
        assert choose(stack, version) == str(folder / expected)
        (line,) = capsys.readouterr().out.splitlines()
        assert f"Python {version[0]}.{version[1]} does not fit the {stack} stack" in line
        assert f"so {folder / expected} is used" in line

    def test_those_that_do_not_run_or_lie_are_passed_over(self, folders, choose):
        shims, system = folders(
            {"python3.13": "", "python3.12": "3 9", "python3.11": "", "python3.10": "3 10"},
            {"python3.11": "3 11"},
        )
        assert choose("fork", (3, 14)) == str(system / "python3.11")
        (system / "python3.11").unlink()
        assert choose("fork", (3, 14)) == str(shims / "python3.10")

    @pytest.mark.parametrize("interpreters", [{}, {"python3.11": "", "python3.9": "3 9"}])
    def test_none_fits(self, folders, choose, scripts, interpreters):
        folders(interpreters)
        with pytest.raises(scripts["common"].SetupError) as caught:
            choose("fork", (3, 9))
        message = str(caught.value)
        assert message.startswith("Python 3.9 found, but the fork stack needs one of 3.10, 3.11, ")
        assert "no python3.13, python3.12, python3.11 or python3.10 on PATH" in message
        assert "\n" not in message

    def test_a_named_one_is_not_replaced(self, folders, choose, scripts):
        folders({"python3.11": "3 11"})
        with pytest.raises(scripts["common"].SetupError, match="3.9 found.*make env PYTHON="):
            choose("fork", (3, 9), search=False)

    def test_a_real_one_tells_its_version(self, scripts):
        pytest.importorskip("ensurepip")
        assert scripts["interpreters"].probe(sys.executable) == sys.version_info[:2]
        assert scripts["interpreters"].probe("/nowhere/python3") is None


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
class TestMake:
    """The Makefile's own part: which interpreter starts the set-up, and with which options."""

    @pytest.fixture
    def make(self, tmp_path):
        def run(*arguments, **interpreters):
            folder = tmp_path / "bin"
            folder.mkdir()
            for name in ("make", "sh"):
                (folder / name).symlink_to(shutil.which(name))
            for name, runs in interpreters.items():
                python = folder / name.replace("_", ".")
                # It is asked for its version first, with -c.
                echo = f'case "$1" in -c) ;; *) echo {python.name} "$@" ;; esac'
                python.write_text("#!/bin/sh\n" + (echo if runs else "exit 127") + "\n")
                python.chmod(0o755)
            return subprocess.run(
                ["make", "--no-print-directory", "env", *arguments],
                cwd=ROOT,
                env={"PATH": str(folder)},
                capture_output=True,
                text=True,
            )

        return run

    def test_python3_comes_first_and_may_search(self, make):
        done = make(python3=True, python3_11=True)
        assert done.stdout == "python3 requirements/install.py fork .venv --search\n"
        assert done.returncode == 0

    def test_a_python3_that_does_not_run_is_passed_over(self, make):
        done = make("STACK=original", "VENV=x", python3=False, python3_13=False, python3_11=True)
        assert done.stdout == "python3.11 requirements/install.py original x --search\n"

    def test_a_named_one_wins_and_may_not_search(self, make):
        done = make("PYTHON=python3.10", python3=True, python3_10=True)
        assert done.stdout == "python3.10 requirements/install.py fork .venv\n"

    def test_none_runs(self, make):
        done = make(python3=False)
        assert done.returncode != 0
        error = done.stderr.splitlines()[0]
        assert error.startswith("error: no Python 3 on PATH runs")
        assert "`make env PYTHON=" in error


def test_somebody_elses_environment_without_pip_is_not_deleted(machine, capsys):
    venv = machine.venv()
    assert machine.set_up(venv, fail="install:--version") == 1
    assert "has no pip: delete the folder" in capsys.readouterr().err
    assert (venv / "bin" / "python").exists()


def test_a_second_set_up_waits_for_the_first(machine, scripts, capsys):
    venv = machine.venv()
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import sys, time; sys.path.insert(0, {str(ROOT / 'requirements')!r})\n"
            "from common import locked\n"
            f"with locked({str(venv) + '.lock'!r}, 'x'): print('held', flush=True); time.sleep(1)",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout.readline() == "held\n"
    assert machine.set_up(venv) == 0
    assert holder.wait() == 0  # it had ended by then
    assert f"waiting for another set-up that is working in {venv}" in capsys.readouterr().out


def test_what_a_killed_build_left_is_removed(machine):
    left = machine.cache / FOLDER / ".building-abc"
    left.mkdir(parents=True)
    assert machine.set_up(machine.venv()) == 0
    assert not left.exists()


GPU = {**CPU, "arch": "9.0", "cuda_home": "/usr/local/cuda"}


@pytest.mark.parametrize(
    ("probe", "nvcc", "folder", "variables"),
    [
        (CPU, None, "cpu", {"CUDA_VISIBLE_DEVICES": ""}),
        (CPU, "12.8", "cpu", {"CUDA_VISIBLE_DEVICES": ""}),
        (GPU, "12.8", "cu128-sm90", {"FORCE_CUDA": "1", "TORCH_CUDA_ARCH_LIST": "9.0"}),
        (GPU, "12.4", "cu124-sm90", {"FORCE_CUDA": "1", "TORCH_CUDA_ARCH_LIST": "9.0"}),
        (GPU, "13.0", "cpu", {"CUDA_VISIBLE_DEVICES": ""}),
        (GPU, None, "cpu", {"CUDA_VISIBLE_DEVICES": ""}),
    ],
)
@pytest.mark.parametrize("stack", ["fork", "original"])
def test_what_the_ops_are_built_for(scripts, capsys, stack, probe, nvcc, folder, variables):
    assert scripts["mmcv_wheel"].plan_build(stack, probe, nvcc) == (folder, variables)
    note = capsys.readouterr().out
    if probe is GPU and folder == "cpu":
        mim = {"fork": "`mim install onedl-mmcv`", "original": "`mim install mmcv`"}[stack]
        assert "nms" in note
        assert "RoIAlign" in note
        assert mim in note
        assert (nvcc or "no nvcc") in note
    else:
        assert note == ""


def test_an_image_is_built_for_gpus_that_are_not_there(machine, tmp_path, capsys):
    cuda = tmp_path / "cuda"
    (cuda / "bin").mkdir(parents=True)
    nvcc = cuda / "bin" / "nvcc"
    nvcc.write_text("#!/bin/sh\necho 'Cuda compilation tools, release 12.8, V12.8.93'\n")
    nvcc.chmod(0o755)
    probe = {**CPU, "cuda_home": str(cuda)}
    venv = machine.venv()
    assert machine.set_up(venv, probe=probe, MMVANILLA_CUDA_ARCH="8.0;9.0+PTX") == 0
    (variables,) = machine.calls("wheel")
    built = json.loads(variables.split(" ", 1)[1])
    assert (built["FORCE_CUDA"], built["TORCH_CUDA_ARCH_LIST"]) == ("1", "8.0;9.0+PTX")
    (wheel,) = machine.cache.rglob("*.whl")
    assert wheel.parent.name == "torch2.10.0+cu128-cp311-cu128-sm80-90+PTX"
    # Asked for by name, a build for the CPU would be a wrong one.
    nvcc.unlink()
    assert machine.set_up(machine.venv("other"), probe=probe) == 1
    assert (
        "error: MMVANILLA_CUDA_ARCH asks for ops for GPUs, but no nvcc" in capsys.readouterr().err
    )


def test_release_of_nvcc(scripts, tmp_path):
    release = scripts["mmcv_wheel"].cuda_release
    assert release(None) is None
    assert release(str(tmp_path)) is None
    nvcc = tmp_path / "bin" / "nvcc"
    nvcc.parent.mkdir()
    nvcc.write_text("#!/bin/sh\necho 'Cuda compilation tools, release 12.8, V12.8.93'\n")
    nvcc.chmod(0o755)
    assert release(str(tmp_path)) == "12.8"


def test_jobs_fit_cores_and_memory(scripts, monkeypatch):
    jobs = scripts["mmcv_wheel"].build_jobs
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))
    pages = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 16 * 2**30 // 4096}
    monkeypatch.setattr(os, "sysconf", pages.__getitem__)
    assert jobs() == 8
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    assert jobs() == 2
    pages["SC_PHYS_PAGES"] = 2**30 // 4096
    assert jobs() == 1


def test_cache_folder_of_the_user(scripts, monkeypatch):
    folder = scripts["mmcv_wheel"].cache_folder
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert folder() == "/caches/mmvanilla/wheels"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert folder() == "/home/somebody/.cache/mmvanilla/wheels"
