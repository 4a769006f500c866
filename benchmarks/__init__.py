"""Benchmarks on the local stack. Only figures of the same run are comparable."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
"""The repository: the working directory of child processes."""
