"""Run a tool of the project: `mmvanilla TOOL [ARGUMENT ...]`, or `python -m mmvanilla TOOL …`.

It finds the tools of the repository also if the package was installed without a clone. Listing them
imports neither torch nor the package itself, which takes seconds.
"""

import ast
import difflib
import importlib.util
import os
import runpy
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

# The order of the list, by what one does first. Tools that are not named here follow under `more`.
GROUPS = {
    "configs": ("configs", "check"),
    "train and test": (
        "train",
        "test",
        "dist_train.sh",
        "dist_test.sh",
        "slurm_train.sh",
        "slurm_test.sh",
    ),
    "use": ("fuse_backbone", "convert_checkpoint", "predict", "visualize"),
    "deploy": ("export", "export_onnx", "quantize", "quantize_onnx", "compare_precisions"),
    "measure": ("get_flops", "benchmark", "gpu_report", "compare_trainings", "run_ablations"),
    "try out": ("make_shapes", "make_garments", "demo"),
    "more": (),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tool that the first argument names, with the remaining arguments.

    Args:
        arguments: The command line without the name of the program. Default: that of the process.

    Returns:
        The exit status, unless the tool exits by itself.
    """
    program = "python -m mmvanilla" if Path(sys.argv[0]).name == "__main__.py" else "mmvanilla"
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        tools = find_tools()
    except RuntimeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(overview(program, tools))
        return 0
    if arguments[0] in ("-V", "--version"):
        print(f"mmvanilla {_load('version').__version__}")
        return 0
    name = _known_name(arguments[0], tools)
    if name is None:
        similar = difflib.get_close_matches(arguments[0], tools, 1, 0.5)
        hint = f"did you mean {similar[0]}? " if similar else ""
        print(
            f"error: unknown tool {arguments[0]!r}; {hint}`{program} --help` lists all tools",
            file=sys.stderr,
        )
        return 2
    return run_tool(f"{program} {name}", tools[name], arguments[1:])


def find_tools() -> dict[str, Path]:
    """Return the tools by name: Python scripts without their suffix, shell scripts with it."""
    tools = {}
    for path in sorted(_load("utils/paths").tools_dir().iterdir()):
        if path.suffix == ".py" and not path.name.startswith("_"):
            tools[path.stem] = path
        elif path.suffix == ".sh":
            tools[path.name] = path
    return tools


def overview(program: str, tools: dict[str, Path]) -> str:
    """Return the text of ``--help``: every tool with the first line of its own description.

    Args:
        program: What the user typed before the name of the tool.
        tools: The tools by name.
    """
    width = max(map(len, tools), default=0)
    lines = [
        f"usage: {program} TOOL [ARGUMENT ...]",
        f"       {program} TOOL --help",
        f"       {program} --version",
        "",
        "VanillaNet (arXiv 2305.12972) for MMDetection, MMSegmentation and MMPretrain",
    ]
    listed = {name for names in GROUPS.values() for name in names}
    for group, names in GROUPS.items():
        here = [name for name in names if name in tools]
        if group == "more":
            here = [name for name in tools if name not in listed]
        if here:
            lines += ["", f"{group}:"]
            lines += [f"  {name:<{width}}  {describe(tools[name])}".rstrip() for name in here]
    return "\n".join(lines)


def describe(tool: Path) -> str:
    """Return the first line of a tool's docstring or, in a shell script, of its comments."""
    text = tool.read_text(encoding="utf-8")
    if tool.suffix == ".py":
        text = ast.get_docstring(ast.parse(text)) or ""
    else:
        comments = [line[2:] for line in text.splitlines() if line.startswith("# ")]
        text = "\n".join(comments)
    return text.partition("\n")[0].removesuffix(".")


def run_tool(command: str, tool: Path, arguments: Sequence[str]) -> int:
    """Run a tool that calls itself what the user typed.

    Args:
        command: What the user typed, without the arguments of the tool.
        tool: Path of the script.
        arguments: Arguments of the tool.

    Returns:
        The exit status, unless the tool exits by itself.
    """
    if tool.suffix == ".sh":
        # Sourced, the script finds what the user typed in $0, and itself in BASH_SOURCE.
        source = 'source "$1" "${@:2}"'
        # Its processes need the interpreter that has this package, which may not be on the PATH.
        environment = {"PYTHON": sys.executable, **os.environ}
        line = ["bash", "-c", source, command, str(tool), *arguments]
        return subprocess.call(line, env=environment)
    try:
        import mmvanilla  # noqa: F401
    except (ImportError, RuntimeError) as error:  # something is not installed, or does not fit
        print(f"error: {error}", file=sys.stderr)
        return 1
    # Give the script what it would see if it had been started by its path, and its name.
    sys.argv = [str(tool), *arguments]
    sys.path.insert(0, str(tool.parent))
    runpy.run_path(str(tool), init_globals={"COMMAND": command}, run_name="__main__")
    return 0


def _known_name(given: str, tools: dict[str, Path]) -> str | None:
    """Return the name of the tool that is meant; hyphens and a missing ``.sh`` are forgiven."""
    name = given.replace("-", "_")
    return next((known for known in (given, name, f"{name}.sh") if known in tools), None)


def _load(name: str) -> ModuleType:
    """Load a module of this package that imports nothing of it, without loading the package."""
    path = Path(__file__).parent / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"_mmvanilla_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    sys.exit(main())
