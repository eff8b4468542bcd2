"""Install mmcv with compiled ops, from a folder of wheels that all clones on a machine share.

The package index has only the source of mmcv, which must be compiled for the installed torch. pip's
own cache would keep such a wheel without regard to torch, so it is not used; the folder here is
named after the version of torch, the Python tag and the device that the ops were built for.
"""

import glob
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile

from common import HERE, STACKS, SetupError, ask, locked, pinned_version, run, say

# Compute capabilities to build for where no GPU is visible, as in the build of an image.
ARCH_VARIABLE = "MMVANILLA_CUDA_ARCH"
# Asks the environment's own torch for what determines the build of the ops.
PROBE = """
import json, sys, sysconfig, torch
from torch.utils.cpp_extension import CUDA_HOME
gpu = torch.cuda.is_available()
print(json.dumps({
    "torch": torch.__version__,
    "cuda": torch.version.cuda,
    "arch": "%d.%d" % torch.cuda.get_device_capability() if gpu else None,
    "cuda_home": CUDA_HOME,
    "tag": "cp%d%d" % sys.version_info[:2],
    "platform": sysconfig.get_platform(),
}))
"""


def cuda_release(cuda_home):
    """Return the release ("12.8") of the CUDA compiler in `cuda_home`, None without one."""
    nvcc = os.path.join(cuda_home, "bin", "nvcc") if cuda_home else None
    if not nvcc or not os.path.exists(nvcc):
        return None
    found = re.search(r"release (\d+\.\d+)", ask([nvcc, "--version"]))
    return found.group(1) if found else None


def plan_build(stack, probe, nvcc):
    """Decide for which device the ops are built.

    Args:
        stack: Name of the stack.
        probe: Output of ``PROBE``, as a dict.
        nvcc: Release of the CUDA compiler; None if there is none.

    Returns:
        The end of the name of the wheel folder, and the environment variables of the build.
    """
    # Hide a GPU that must not be used, or mmcv would require the CUDA compiler.
    cpu = ("cpu", {"CUDA_VISIBLE_DEVICES": ""})
    if probe["arch"] is None:
        return cpu
    major = probe["cuda"].split(".")[0]
    # torch refuses a CUDA compiler of another major release than its own.
    if nvcc is not None and nvcc.split(".")[0] == major:
        folder = re.sub("[^A-Za-z0-9+]+", "-", f"cu{nvcc}-sm{probe['arch']}".replace(".", ""))
        return folder, {"FORCE_CUDA": "1", "TORCH_CUDA_ARCH_LIST": probe["arch"]}
    distribution, mim, _ = STACKS[stack]
    compiler = "no nvcc" if nvcc is None else f"nvcc is of CUDA {nvcc}"
    if os.environ.get(ARCH_VARIABLE):
        raise SetupError(
            f"{ARCH_VARIABLE} asks for ops for GPUs, but {compiler} and torch is of CUDA "
            f"{probe['cuda']}: install CUDA {major}'s nvcc, or unset the variable"
        )
    say(
        f"NOTE: there is a GPU, but {compiler} and torch is of CUDA {probe['cuda']}: mmcv's ops "
        "are built for the CPU only. Detectors that call nms, RoIAlign, deformable convolution and "
        "the like will not run on this GPU; VanillaNet, classification and most segmentation "
        f"will. Install CUDA {major}'s nvcc, delete the environment and run again; or take a "
        f"prebuilt mmcv where mim has one for this torch: `pip install {mim}`, then "
        f"`mim install {distribution}`."
    )
    return cpu


def cache_folder():
    """Return where the wheel folders of this user are."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(base, "mmvanilla", "wheels")


def build_jobs():
    """Return the number of parallel compilers: one per core, with 2 GiB of memory for each."""
    try:
        cores = len(os.sched_getaffinity(0))
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (AttributeError, OSError, ValueError):
        return os.cpu_count() or 1
    return max(1, min(cores, int(memory / 2)))


def holds_ops(wheel):
    """Tell whether a wheel of mmcv has the compiled ops inside."""
    with zipfile.ZipFile(wheel) as archive:
        return any(name.startswith("mmcv/_ext.") for name in archive.namelist())


def compile_wheel(python, requirement, folder, variables):
    """Compile one wheel and move it into `folder` when it is whole; return its path."""
    if not shutil.which(os.environ.get("CXX", "c++")):
        raise SetupError(
            "no C++ compiler found, and mmcv's ops have to be compiled: install one "
            "(Debian and Ubuntu: apt-get install g++) and run again"
        )
    env = {name: value for name, value in os.environ.items() if name != "FORCE_CUDA"}
    env.update(variables, MMCV_WITH_OPS="1")
    env.setdefault("MAX_JOBS", str(build_jobs()))
    # Python's own flags, which these variables replace, ask for debug symbols: almost half the
    # compile time, and most of the wheel.
    default = ask(
        [python, "-c", "import sysconfig; print(sysconfig.get_config_var('CFLAGS') or '')"]
    )
    for name in ("CFLAGS", "CXXFLAGS"):
        env[name] = f"{env.get(name) or default.strip()} -g0"
    # The environment's ninja comes first.
    env["PATH"] = os.path.dirname(python) + os.pathsep + env.get("PATH", "")
    log = os.path.join(folder, "build.log")
    say(
        f"compiling the ops of {requirement} with {env['MAX_JOBS']} jobs, once for this machine: "
        f"up to 10 minutes on two cores; log: {log}"
    )
    scratch = tempfile.mkdtemp(prefix=".building-", dir=folder)
    command = [python, "-m", "pip", "wheel", "--verbose", "--no-deps", "--no-build-isolation"]
    command += ["--no-cache-dir", "--no-binary", requirement.split("==")[0]]
    try:
        with open(log, "w") as file:
            done = subprocess.run(
                command + ["--wheel-dir", scratch, requirement],
                env=env,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        if done.returncode != 0:
            with open(log, errors="replace") as file:
                print("".join(file.readlines()[-15:]), file=sys.stderr)
            raise SetupError(f"mmcv did not compile; the whole output is in {log}")
        (wheel,) = glob.glob(os.path.join(scratch, "*.whl"))
        if not holds_ops(wheel):
            raise SetupError(f"mmcv was built without its ops; the build's output is in {log}")
        # Within one file system: the folder never holds half a wheel.
        target = os.path.join(folder, os.path.basename(wheel))
        os.replace(wheel, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


def install_mmcv(stack, python):
    """Install mmcv with its ops, compiling it at most once; return the wheel folder."""
    distribution = STACKS[stack][0]
    version = pinned_version(stack, distribution)
    probe = json.loads(ask([python, "-c", PROBE]).splitlines()[-1])
    probe["arch"] = os.environ.get(ARCH_VARIABLE) or probe["arch"]
    variant, variables = plan_build(stack, probe, cuda_release(probe["cuda_home"]))
    folder = os.path.join(cache_folder(), f"torch{probe['torch']}-{probe['tag']}-{variant}")
    platform = re.sub(r"[-.]", "_", probe["platform"])
    pattern = f"{distribution.replace('-', '_')}-{version}-*-{platform}.whl"
    os.makedirs(folder, exist_ok=True)
    with locked(os.path.join(folder, ".lock"), folder):
        # No other process works here now, so such folders are left from killed builds.
        for scratch in glob.glob(os.path.join(folder, ".building-*")):
            shutil.rmtree(scratch, ignore_errors=True)
        wheels = glob.glob(os.path.join(folder, pattern))
        if wheels:
            wheel = wheels[0]
        else:
            wheel = compile_wheel(python, f"{distribution}=={version}", folder, variables)
    say(f"installing {wheel}")
    # pip skips a wheel of the installed version, even if the installed files are broken.
    force = ["--force-reinstall"] if ops_error(python) else []
    run([python, "-m", "pip", "install", "-qq", "--no-deps", *force, wheel])
    return folder


def ops_error(python):
    """Import the compiled ops as mmdet does; return the error, or None without one."""
    done = subprocess.run(
        [python, "-c", "import mmcv.ops"],
        cwd=HERE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        universal_newlines=True,
    )
    if done.returncode == 0:
        return None
    return (done.stdout.strip().splitlines() or ["no output"])[-1]


def check_ops(python, folder):
    """Refuse an environment whose ops do not load."""
    error = ops_error(python)
    if error is not None:
        raise SetupError(
            f"`import mmcv.ops` fails ({error}): the wheel does not fit this torch. Delete the "
            f"folder {folder} and run again: the ops are then compiled again"
        )
