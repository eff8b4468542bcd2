"""Checkpoint files: safe reading, whole writing, and the authors' weights."""
