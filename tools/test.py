"""Test a detector, segmenter or classifier: its checkpoint, or an exported model.

An .onnx file, or OpenVINO's .xml file, runs in its own runtime on the images of the test split,
with the settings in the file, and the config's metrics judge what it finds.
"""

import os
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence

from mmvanilla.apis.runners import build_test_runner
from mmvanilla.deploy.exported_model import is_exported, options_to_test
from mmvanilla.engine import cpu_distributed
from mmvanilla.utils import cli


def build_parser() -> ArgumentParser:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("config", help="config file, or the name of one that `configs` lists")
    parser.add_argument(
        "checkpoint",
        help="checkpoint file, an address such as vanillanet://13, or an exported .onnx or .xml",
    )
    parser.add_argument("--out", help=".pkl file for the raw predictions")
    parser.add_argument("--show", action="store_true", help="show the predictions in a window")
    parser.add_argument("--show-dir", help="folder for pictures of the predictions")
    parser.add_argument(
        "--wait-time", type=float, default=2.0, help="seconds for each window (default: 2)"
    )
    parser.add_argument("--tta", action="store_true", help="test-time augmentation")
    cli.add_runner_options(parser)
    return parser


def test(args: Namespace) -> None:
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    checkpoint, cfg_options = args.checkpoint, args.cfg_options
    if is_exported(checkpoint):
        for name in ("tta", "compile", "channels_last"):
            if getattr(args, name):
                raise ValueError(
                    f"--{name.replace('_', '-')} is for models in PyTorch, and {checkpoint} is an "
                    "exported one; leave it out"
                )
        checkpoint, cfg_options = None, {**(cfg_options or {}), **options_to_test(checkpoint)}
    runner = build_test_runner(
        args.config,
        checkpoint,
        work_dir=args.work_dir,
        out=args.out,
        show=args.show,
        show_dir=args.show_dir,
        wait_time=args.wait_time,
        tta=args.tta,
        cfg_options=cfg_options,
        launcher=args.launcher,
        channels_last=args.channels_last,
        compiled=args.compile,
    )
    runner.test()
    cpu_distributed.finish()


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(build_parser(), test, argv)


if __name__ == "__main__":
    sys.exit(main())
