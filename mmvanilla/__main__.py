"""Run a tool of the project: `python -m mmvanilla TOOL [ARGUMENT ...]`.

The tools of the repository are found where the package was installed without a clone, too.
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
    """Run the tool that the first argument names with the other ones.

    Args:
        arguments: The command line without the program's name.

    Returns:
        The exit status, where the tool does not exit by itself.
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
            f"error: unknown tool {arguments[0]!r}; the tools are: {', '.join(tools)}",
            file=sys.stderr,
        )
        return 2
    if path.suffix == ".sh":
        return subprocess.call(["bash", str(path), *arguments[1:]])
    # As if the script had been started by its path.
    sys.argv = [str(path), *arguments[1:]]
    sys.path.insert(0, str(path.parent))
    runpy.run_path(str(path), run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
