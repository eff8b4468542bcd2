"""What every tool does the same: parse, call, and say what went wrong in one line."""

from __future__ import annotations

import sys
import traceback
from argparse import ArgumentParser, Namespace
from collections.abc import Callable

# What a user can cause and mend; anything else also names its type.
_EXPECTED = (ValueError, TypeError, RuntimeError, OSError, ImportError)


def run(parser: ArgumentParser, command: Callable[[Namespace], object]) -> None:
    """Parse the command line, run ``command`` with it, and exit.

    Adds ``--debug``. Without it an exception becomes one line on stderr and exit status 1; an
    interrupt exits with 130.

    Args:
        parser: The tool's own arguments.
        command: Does the work; what it returns is ignored.
    """
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    args = parser.parse_args()
    try:
        command(args)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:  # the last stop of every tool
        if args.debug:
            traceback.print_exc()
        message = " ".join(str(error).split()) or "no message"
        name = "" if isinstance(error, _EXPECTED) else f"{type(error).__name__}: "
        print(f"error: {name}{message}", file=sys.stderr)
        sys.exit(1)
