"""Options of commands are checked before a connection is opened."""

import pytest
from typer.testing import CliRunner

from service.cli import app


@pytest.mark.parametrize("options", ["--coupon 7", "--code poison", "--dry-run"])
def test_an_id_cannot_be_combined_with_options_that_select_dead_letters(options: str) -> None:
    """A dry run of one dead letter would otherwise replay it."""
    assert "An id cannot be combined with --coupon, --code or --dry-run." in _refusal(f"replay 1 {options}")


@pytest.mark.parametrize("command", ["list", "replay"])
def test_only_the_codes_of_dead_letters_can_be_selected(command: str) -> None:
    """No dead letter has the code of a refusal."""
    refusal = _refusal(f"{command} --code sold_out")

    assert "'sold_out' is not one of 'poison', 'exhausted'" in refusal


def _refusal(arguments: str) -> str:
    """Return the error message of a command with invalid options, without the frame and the line breaks."""
    ended = CliRunner().invoke(app, ["dead-letters", *arguments.split()])
    assert ended.exit_code == 2
    return " ".join(ended.output.replace("│", " ").split())
