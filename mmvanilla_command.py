"""The console script `mmvanilla`: what `python -m mmvanilla` does, but fast.

It stands beside the package because importing anything inside it imports torch first.
"""

import importlib.util
import sys
from pathlib import Path


def main() -> int:
    """Run ``mmvanilla/__main__.py`` without importing the package."""
    spec = importlib.util.find_spec("mmvanilla")
    if spec is None or spec.origin is None:
        print("error: the package mmvanilla is not installed completely", file=sys.stderr)
        return 1
    path = Path(spec.origin).with_name("__main__.py")
    entry = importlib.util.spec_from_file_location("_mmvanilla_main", path)
    assert entry is not None and entry.loader is not None
    module = importlib.util.module_from_spec(entry)
    entry.loader.exec_module(module)
    return module.main()
