"""Train configs with the paper's switches and several seeds, and compare them."""

from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter

from mmvanilla.analysis.ablation import (
    SWITCHES,
    AblationRun,
    ablation_table,
    options_line,
    run_ablations,
)
from mmvanilla.utils import cli


def build_parser() -> ArgumentParser:
    width = max(map(len, SWITCHES))
    lines = [f"  {name:<{width}}  {options_line(name)}".rstrip() for name in SWITCHES]
    parser = ArgumentParser(
        description=__doc__,
        epilog="switches, and the options by which any tool trains the same:\n" + "\n".join(lines),
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "configs",
        nargs="+",
        metavar="config",
        help="config files or names, such as ablations/vanillanet6_shapes.py",
    )
    parser.add_argument(
        "--switches",
        nargs="+",
        default=list(SWITCHES),
        metavar="SWITCH",
        help="what to try on each config (default: all switches)",
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument(
        "--work-dir", default="work_dirs/ablations", help="default: work_dirs/ablations"
    )
    return parser


def report(run: AblationRun) -> None:
    print(f"{run.config}, seed {run.seed}: {run.trained:.1f}, fused {run.fused:.1f}", flush=True)


def main(args: Namespace) -> None:
    runs = run_ablations(args.configs, args.seeds, args.work_dir, args.switches, report)
    print(f"\n{ablation_table(runs)}")


if __name__ == "__main__":
    cli.run(build_parser(), main)
