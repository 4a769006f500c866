"""Pytest plugins that all tests share."""

pytest_plugins = [
    "tests.fixtures.parts",
    "tests.fixtures.resources",
    "tests.fixtures.running",
    "tests.fixtures.api_processes",
    "tests.fixtures.browser",
    "tests.fixtures.callers",
    "tests.fixtures.commands",
    "tests.faults.selection",
    "tests.faults.report",
]
"""Servers that are started once, objects on an emptied database for each test, running processes; then the options and
the report of the fault tests."""
