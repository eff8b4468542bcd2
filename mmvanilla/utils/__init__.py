"""Helpers for every room: the command line, installed packages, files and numbers."""
