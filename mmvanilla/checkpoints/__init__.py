"""Checkpoint files: safe reading, atomic writing, and the authors' weights."""
