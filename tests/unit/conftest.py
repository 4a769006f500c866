"""What unit tests share: a Hypothesis profile, and facts that only a fresh process can find out."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings

from tests.unit import facts

settings.register_profile("unit", max_examples=40, deadline=None, database=None)
settings.load_profile("unit")
_PARTS = ("service", "workers.issuer", "celery")
Facts = dict[str, dict[str, Any]]


@pytest.fixture(scope="session", autouse=True)
def _processes(request: pytest.FixtureRequest) -> Iterator[dict[str, facts.FactsProcess]]:
    """Start one process for each set of facts if any test needs them; they take seconds."""
    wanted = any("import_facts" in getattr(item, "fixturenames", ()) for item in request.session.items)
    processes = {part: facts.start(part) for part in _PARTS if wanted}
    yield processes
    for process in processes.values():
        process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def import_facts(_processes: dict[str, facts.FactsProcess]) -> Facts:
    """Facts about each part of the project, found by importing it in a process of its own."""
    return {part: facts.read(process) for part, process in _processes.items()}
