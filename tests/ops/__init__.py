"""Tests of the stand-in for MMCV's compiled operators, which has to be imported before MMCV's."""

import mmvanilla.ops  # noqa: F401
