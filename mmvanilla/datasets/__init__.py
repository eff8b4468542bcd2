"""Data that this package makes by itself."""
