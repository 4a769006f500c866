"""What pure tests share: a profile for random tests, and facts that only a process of its own can tell."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings

from tests.unit import facts

settings.register_profile("unit", max_examples=40, deadline=None, database=None)
settings.load_profile("unit")
_QUESTIONS = ("service", "workers.issuer", "celery")
Facts = dict[str, dict[str, Any]]


@pytest.fixture(scope="session", autouse=True)
def _asked(request: pytest.FixtureRequest) -> Iterator[dict[str, facts.Asked]]:
    """The questions, asked before the first test where one will want the answers: they take seconds."""
    wanted = any("told" in getattr(item, "fixturenames", ()) for item in request.session.items)
    asked = {question: facts.ask(question) for question in _QUESTIONS if wanted}
    yield asked
    for process in asked.values():
        process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def told(_asked: dict[str, facts.Asked]) -> Facts:
    """What importing each part of the project leaves behind, and what Celery's app knows."""
    return {question: facts.told(process) for question, process in _asked.items()}
