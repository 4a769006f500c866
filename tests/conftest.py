"""What every test may ask for; each kind of fixture has a file of its own."""

pytest_plugins = [
    "tests.fixtures.parts",
    "tests.fixtures.resources",
    "tests.fixtures.running",
    "tests.faults.selection",
    "tests.faults.report",
]
"""Fixtures by what they cost: parts (seconds, once), rooms (a clean database each test), running processes; then the
options and the table of the rows of faults."""
