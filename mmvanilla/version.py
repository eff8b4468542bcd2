"""The version of this package, readable without importing it (setup.py does)."""

__version__ = "0.1.0"
