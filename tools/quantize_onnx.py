"""The first name of tools/quantize.py: tools/quantize_onnx.py CONFIG MODEL OUT [options]."""

import runpy
from pathlib import Path

if __name__ == "__main__":
    runpy.run_path(str(Path(__file__).with_name("quantize.py")), run_name="__main__")
