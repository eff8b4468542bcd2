"""Predict with an exported model, without its config and without PyTorch.

MODEL is a file of export (.onnx, .xml, .param, .tflite or .pte), whose metadata has all settings.
On a device without PyTorch run predict.py, the same program, of `export --with-runner`.
"""

import sys
from functools import partial

from mmvanilla.deploy.runner import build_parser, predict
from mmvanilla.utils import cli

main = partial(cli.run, build_parser, predict)

if __name__ == "__main__":
    sys.exit(main())
