"""Check at the import of the package what it needs; in a command, report an error in one line."""

import sys
from pathlib import Path

from mmvanilla.utils.dependencies import require

_PACKAGE = "mmvanilla"


def check_requirements() -> None:
    """Check that mmengine and mmcv are installed, before anything imports them.

    Raises:
        ImportError: One of them is not installed, and the process is no command of ours.
        RuntimeError: An installed version does not work, and the process is no command of ours.
        SystemExit: Either of these, in ``mmvanilla …`` and ``python -m mmvanilla …``.
    """
    try:
        require("mmengine", "mmcv")
    except (ImportError, RuntimeError) as error:
        if runs_as_command(sys.argv, sys.orig_argv):
            raise SystemExit(f"error: {error}") from None
        raise


def runs_as_command(argv: list[str], orig_argv: list[str]) -> bool:
    """Tell whether the process is ``mmvanilla …`` or ``python -m mmvanilla …``.

    Args:
        argv: ``sys.argv``; while Python looks for the module of ``-m``, it begins with ``"-m"``.
        orig_argv: ``sys.orig_argv``.
    """
    if argv[:1] == ["-m"]:
        return _PACKAGE in orig_argv and orig_argv[orig_argv.index(_PACKAGE) - 1] == "-m"
    return bool(argv) and Path(argv[0]).stem == _PACKAGE
