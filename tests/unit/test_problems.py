"""The list of problems is complete, and everything that shows it agrees with it."""

from pathlib import Path

from service.api.problem_pages import render_markdown
from service.domain.error_code import ErrorCode
from service.server.problems import PROBLEMS

_ROOT = Path(__file__).parents[2]
#: service/domain/error_code.py says so, too
_OF_COMMANDS = {ErrorCode.UNKNOWN_KEY, ErrorCode.NOTHING_LOST, ErrorCode.LOG_CLOSED, ErrorCode.IN_USE}


def test_every_code_is_a_problem_or_of_commands_only() -> None:
    """A code that a route raises has a status; one that none raises is not in the OpenAPI document."""
    assert set(ErrorCode) - PROBLEMS.keys() == _OF_COMMANDS


def test_the_list_in_the_documentation_is_the_present_one() -> None:
    """Run `python -m service.api.problem_pages > docs/problems.md` after a change."""
    assert (_ROOT / "docs" / "problems.md").read_text() == render_markdown()
