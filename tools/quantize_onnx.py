"""Quantise an exported classifier to int8: tools/quantize_onnx.py CONFIG MODEL OUT [options].

MODEL is what tools/export_onnx.py wrote. Activations are calibrated on images of the config's
training split; accuracy and latency before and after are measured on its test split.
"""

from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter

from rich.console import Console
from rich.table import Table

from mmvanilla.apis.config import load_config
from mmvanilla.apis.data_checks import require_data
from mmvanilla.deploy.onnx_quantize import SCHEMES, quantize_classifier
from mmvanilla.utils import cli


def build_parser() -> ArgumentParser:
    schemes = "\n".join(f"  {name}: {meaning}" for name, meaning in SCHEMES.items())
    parser = ArgumentParser(
        description=f"{__doc__}\nschemes:\n{schemes}", formatter_class=RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="config file of the classifier")
    parser.add_argument("model", help=".onnx file in fp32")
    parser.add_argument("out", help=".onnx file to write")
    parser.add_argument(
        "--scheme", choices=list(SCHEMES), default="per_channel", help="default: per_channel"
    )
    parser.add_argument(
        "--compare-all", action="store_true", help="also measure the other schemes, without files"
    )
    parser.add_argument(
        "--calibration-images", type=int, default=128, metavar="N", help="default: 128"
    )
    parser.add_argument("--test-images", type=int, metavar="N", help="default: all")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    cli.add_cfg_options(parser)
    return parser


def quantize(args: Namespace) -> None:
    console = Console()
    cfg = load_config(args.config, args.cfg_options)
    require_data(cfg, "train_dataloader", "test_dataloader")
    with console.status("starting") as status:
        forms = quantize_classifier(
            cfg,
            args.model,
            args.out,
            scheme=args.scheme,
            compared=tuple(SCHEMES) if args.compare_all else (),
            calibration_images=args.calibration_images,
            test_images=args.test_images,
            overwrite=args.overwrite,
            progress=status.update,
        )
    table = Table(title=f"{args.model}, one image at a time", title_justify="left")
    table.add_column("form", no_wrap=True)
    for column in ("top-1 %", "as fp32 %", "logit error %", "median ms", "quartiles ms", "MB"):
        table.add_column(column, justify="right", no_wrap=column == "quartiles ms")
    for form in forms:
        latency = form.latency
        table.add_row(
            form.name,
            f"{form.accuracy:.1f}",
            f"{form.agreement:.1f}",
            f"{form.logit_error:.2f}",
            f"{latency.median:.2f}",
            f"{latency.low:.2f}-{latency.high:.2f}",
            f"{form.size_bytes / 1e6:.2f}",
        )
    console.print(table)
    print(f"written: {args.out} ({args.scheme})")


if __name__ == "__main__":
    cli.run(build_parser(), quantize)
