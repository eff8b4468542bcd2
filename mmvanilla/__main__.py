"""Run a tool of the project: `mmvanilla TOOL [ARGUMENT ...]`, or `python -m mmvanilla TOOL …`.

The command `mmvanilla` lists them without torch and the package itself, which takes seconds.
"""

import ast
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

_PACKAGE = Path(__file__).parent
_WITHOUT_LIBGL = (
    "; run `pip uninstall -y opencv-python`, then "
    "`pip install --force-reinstall --no-deps opencv-python-headless`"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tool that the first argument names, with the others, and return its exit status."""
    program = "python -m mmvanilla" if Path(sys.argv[0]).name == "__main__.py" else "mmvanilla"
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        folder = _load(_PACKAGE / "utils" / "paths.py").tools_dir()
    except RuntimeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    tools = {path.stem: path for path in folder.glob("[!_]*.py")}
    if not arguments or arguments[0] in ("-h", "--help"):
        return _print(overview(program, tools))
    if arguments[0] in ("-V", "--version"):
        return _print(f"mmvanilla {_load(_PACKAGE / 'version.py').__version__}")
    name = arguments[0].replace("-", "_").removesuffix(".py")
    if name not in tools:
        message = f"unknown tool {arguments[0]!r}; `{program} --help` lists all tools"
        print(f"error: {message}", file=sys.stderr)
        return 2
    sys.argv = [f"{program} {name}", *arguments[1:]]  # what argparse calls the tool
    try:
        tool = _load(tools[name])
    except ImportError as error:
        remedy = _WITHOUT_LIBGL if "libGL" in str(error) else ""
        print(f"error: {error}{remedy}", file=sys.stderr)
        return 1
    return tool.main()


def overview(program: str, tools: dict[str, Path]) -> str:
    """Return the text of ``--help``: every tool with the first line of its own description."""
    width = max(map(len, tools), default=0)
    lines = [
        f"usage: {program} TOOL [ARGUMENT ...]",
        f"       {program} TOOL --help",
        f"       {program} --version",
        "",
        "VanillaNet (arXiv 2305.12972) for MMDetection, MMSegmentation and MMPretrain",
        "",
    ]
    for name, path in sorted(tools.items()):
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        first_line = text.partition("\n")[0].removesuffix(".")
        lines.append(f"  {name:<{width}}  {first_line}".rstrip())
    return "\n".join(lines)


def _print(text: str) -> int:
    try:
        print(text, flush=True)
    except BrokenPipeError:  # the reader of a pipe, such as head, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _load(path: Path) -> ModuleType:
    """Load a file without importing the package around it."""
    spec = importlib.util.spec_from_file_location(f"_mmvanilla_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    sys.exit(main())
