"""What every tool does the same: parse, call, and say what went wrong in one line."""

from __future__ import annotations

import sys
import traceback
from argparse import ArgumentError, ArgumentParser, Namespace
from collections.abc import Callable
from typing import Any

from mmengine.config import DictAction

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


class _OptionsAction(DictAction):
    """mmengine's reading of ``key=value``, with argparse's error for what is none."""

    def __call__(
        self,
        parser: ArgumentParser,
        namespace: Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        try:
            super().__call__(parser, namespace, values, option_string)
        except (ValueError, AssertionError) as error:
            raise ArgumentError(
                self, f"cannot read {' '.join(values)!r} ({error}); give key=value, key.inner=value"
            ) from error


def add_cfg_options(parser: ArgumentParser) -> None:
    """Let the command line override entries of a config, as OpenMMLab's tools do."""
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=_OptionsAction,
        help="override entries of the config, as key=value with dots in the key",
    )


def add_runner_options(parser: ArgumentParser) -> None:
    """The options that training and testing have in common."""
    add_cfg_options(parser)
    parser.add_argument("--work-dir", help="folder for logs and checkpoints")
    parser.add_argument(
        "--launcher",
        choices=["none", "pytorch", "slurm", "mpi"],
        default="none",
        help="who starts the processes (default: none)",
    )
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help="for launchers")
