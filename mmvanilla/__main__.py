"""Run a tool of the project: `python -m mmvanilla TOOL [ARGUMENT ...]`.

It finds the tools of the repository also if the package was installed without a clone.
"""

import runpy
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from mmvanilla.utils.paths import tools_dir


def find_tools() -> dict[str, Path]:
    """Return the tools by name: Python scripts without their suffix, shell scripts with it."""
    tools = {}
    for path in sorted(tools_dir().iterdir()):
        if path.suffix == ".py" and not path.name.startswith("_"):
            tools[path.stem] = path
        elif path.suffix == ".sh":
            tools[path.name] = path
    return tools


def main(arguments: Sequence[str]) -> int:
    """Run the tool that the first argument names, with the remaining arguments.

    Args:
        arguments: The command line without the name of the program.

    Returns:
        The exit status, unless the tool exits by itself.
    """
    try:
        tools = find_tools()
    except RuntimeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: python -m mmvanilla TOOL [ARGUMENT ...]\n\ntools:")
        print("\n".join(f"  {name}" for name in tools))
        return 0
    path = tools.get(arguments[0])
    if path is None:
        print(
            f"error: unknown tool {arguments[0]!r}; choose from {', '.join(tools)}",
            file=sys.stderr,
        )
        return 2
    if path.suffix == ".sh":
        return subprocess.call(["bash", str(path), *arguments[1:]])
    # Give the script what it would see if it had been started by its path.
    sys.argv = [str(path), *arguments[1:]]
    sys.path.insert(0, str(path.parent))
    runpy.run_path(str(path), run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
