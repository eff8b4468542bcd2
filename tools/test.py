"""Test a detector, segmenter or classifier: its checkpoint, or an exported model.

An .onnx file, or OpenVINO's .xml file, runs in its own runtime on the images of the test split,
with the settings in the file, and the config's metrics judge what it finds.
"""

import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from functools import partial

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
    parser.add_argument("--show-dir", help="folder for pictures of the predictions")
    parser.add_argument("--tta", action="store_true", help="test-time augmentation")
    cli.add_runner_options(parser)
    return parser


def test(args: Namespace) -> None:
    checkpoint, cfg_options = args.checkpoint, args.cfg_options
    if is_exported(checkpoint):
        if args.tta:
            raise ValueError(f"--tta is for models in PyTorch, and {checkpoint} is exported")
        checkpoint, cfg_options = None, {**(cfg_options or {}), **options_to_test(checkpoint)}
    runner = build_test_runner(
        args.config,
        checkpoint,
        work_dir=args.work_dir,
        out=args.out,
        show_dir=args.show_dir,
        tta=args.tta,
        cfg_options=cfg_options,
        launcher=args.launcher,
    )
    runner.test()
    cpu_distributed.finish()


main = partial(cli.run, build_parser, test)


if __name__ == "__main__":
    sys.exit(main())
