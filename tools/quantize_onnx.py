"""Quantise to int8: an older name of quantize."""

import runpy
from pathlib import Path

if __name__ == "__main__":
    runpy.run_path(str(Path(__file__).with_name("quantize.py")), run_name="__main__")
