"""Quantise an exported classifier to int8.

MODEL is what export wrote: an .onnx file for ONNX Runtime, an .xml file for OpenVINO, which NNCF
quantises, a .tflite file for LiteRT, by AI Edge Quantizer, or a .pt2 file, of which torchao makes
a .pte file for ExecuTorch. Activations are calibrated on images of the config's training split;
accuracy and latency before and after are measured on its test split. All layers become int8. The
metadata is kept.
"""

import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from functools import partial
from pathlib import Path

from rich.console import Console

from mmvanilla.apis.config import load_config
from mmvanilla.deploy.accuracy import to_markdown
from mmvanilla.deploy.quantize import MAX_DROP, SCHEMES, quantize_classifier
from mmvanilla.deploy.runner_runtimes import RUNTIMES
from mmvanilla.utils import cli


def build_parser() -> ArgumentParser:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("config", help="config file of the classifier")
    parser.add_argument("model", help="file in fp32")
    parser.add_argument("out", help="file to write, with the same suffix, or .pte")
    parser.add_argument(
        "--scheme",
        choices=SCHEMES,
        default=SCHEMES[0],
        help="one weight scale for each channel (default), or for each layer, as some chips need",
    )
    parser.add_argument(
        "--calibration-images",
        type=int,
        default=128,
        metavar="N",
        help="images of the training split that set the ranges, at least 1 (default: 128)",
    )
    parser.add_argument(
        "--test-images",
        type=int,
        metavar="N",
        help="images of the test split to measure on, at least 1 (default: all)",
    )
    parser.add_argument(
        "--keep-float",
        nargs="+",
        default=[],
        metavar="LAYER",
        help="layers to leave in fp32; an unknown name lists all (default: none)",
    )
    parser.add_argument(
        "--max-drop",
        type=float,
        default=MAX_DROP,
        metavar="POINTS",
        help="points of top-1 accuracy that int8 may lose; beyond, nothing is written "
        f"(default: {MAX_DROP:g})",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    cli.add_cfg_options(parser)
    return parser


def quantize(args: Namespace) -> None:
    cfg = load_config(args.config, args.cfg_options)
    with Console().status("quantising"):
        forms = quantize_classifier(
            cfg,
            args.model,
            args.out,
            scheme=args.scheme,
            calibration_images=args.calibration_images,
            test_images=args.test_images,
            keep_float=args.keep_float,
            max_drop=args.max_drop,
            overwrite=args.overwrite,
        )
    print(to_markdown(forms))
    out = Path(args.out).expanduser()
    _, entries = RUNTIMES[out.suffix][0](out)
    equalised = entries.get("equalised", "no: export it anew")
    print(f"a weight scale for each {args.scheme}; weights equalised at export: {equalised}")
    print(f"written: {out}")


main = partial(cli.run, build_parser, quantize)


if __name__ == "__main__":
    sys.exit(main())
