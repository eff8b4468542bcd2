"""Exported files need a newer torch than the original stack has: there their tests are skipped."""

import pytest

from tests.helpers import CAN_EXPORT

OF_EXPORTED_FILES = (
    "test_formats",
    "test_onnx_export",
    "test_quantize",
    "test_runner",
    "test_runner_inputs",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not CAN_EXPORT:
        for item in items:
            if item.path.parent.name == "deploy" and item.path.stem in OF_EXPORTED_FILES:
                item.add_marker(pytest.mark.skip(reason="export needs torch 2.6"))
