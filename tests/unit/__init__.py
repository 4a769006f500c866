"""Unit tests: no I/O, no processes."""
