"""Test an exported detector with the metrics of its config.

Each image is read and prepared by the settings in the file, as detector_runner does.
"""

import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from mmengine.structures import InstanceData

from mmvanilla.apis.runners import build_test_runner
from mmvanilla.utils import cli
from projects.mmdeploy.detector_runner import runner


@MODELS.register_module()
class ExportedDetector(BaseModel):
    """An exported detector, behind the interface of MMDetection's; it predicts on files alone."""

    def __init__(self, path: str, data_preprocessor: Any = None) -> None:
        super().__init__()
        self.predictor = runner.Predictor.load(path)

    def forward(self, inputs: Any, data_samples: Sequence[Any], mode: str) -> list[Any]:
        """Predict on the images that data samples name, and add the predictions to these."""
        for sample in data_samples:
            found = self.predictor(self.predictor.read(sample.img_path))
            tensors = {
                name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in found.items()
            }
            sample.pred_instances = InstanceData(**tensors)
        return list(data_samples)


def build_parser() -> ArgumentParser:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("config", help="config file, or the name of one that `configs` lists")
    parser.add_argument("model", help="its exported .onnx file")
    cli.add_cfg_options(parser)
    return parser


def test(args: Namespace) -> None:
    exported = dict(_delete_=True, type="ExportedDetector", path=args.model)
    options = {**(args.cfg_options or {}), "model": exported, "load_from": None}
    build_test_runner(args.config, None, cfg_options=options).test()


main = partial(cli.run, build_parser, test)


if __name__ == "__main__":
    sys.exit(main())
