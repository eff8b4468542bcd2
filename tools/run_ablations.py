"""Train configs with several seeds, fuse, print a table: tools/run_ablations.py CONFIG..."""

from argparse import ArgumentParser, Namespace

from mmvanilla.analysis.ablation import AblationRun, ablation_table, run_ablations
from mmvanilla.utils import cli


def build_parser() -> ArgumentParser:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("configs", nargs="+", metavar="config", help="config files")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument(
        "--work-dir", default="work_dirs/ablations", help="default: work_dirs/ablations"
    )
    return parser


def report(run: AblationRun) -> None:
    print(f"{run.config}, seed {run.seed}: {run.trained:.1f}, fused {run.fused:.1f}", flush=True)


def main(args: Namespace) -> None:
    runs = run_ablations(args.configs, args.seeds, args.work_dir, report)
    print(f"\n{ablation_table(runs)}")


if __name__ == "__main__":
    cli.run(build_parser(), main)
