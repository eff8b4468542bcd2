"""Predict with an exported model, without its config and without PyTorch.

MODEL is an .onnx or .xml file of export; all settings come from its metadata. On a device without
PyTorch run the predict.py that `export --with-runner` writes beside the model: it is the same.
"""

import sys
from functools import partial

from mmvanilla.deploy.runner import build_parser, predict
from mmvanilla.utils import cli

main = partial(cli.run, build_parser, predict)

if __name__ == "__main__":
    sys.exit(main())
