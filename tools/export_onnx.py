"""Export to ONNX: an older name of export --format onnx."""

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.argv[1:1] = ["--format", "onnx"]
    runpy.run_path(str(Path(__file__).with_name("export.py")), run_name="__main__")
