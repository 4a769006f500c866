"""Options of commands are checked before a connection is opened; each command can print JSON."""

from collections.abc import Iterator
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from service.cli import app


@pytest.mark.parametrize("options", ["--coupon 7", "--code poison"])
def test_an_id_cannot_be_combined_with_options_that_select_dead_letters(options: str) -> None:
    """They would have no effect."""
    assert "An id cannot be combined with --coupon or --code." in _refusal(f"dead-letters replay 1 {options}")


@pytest.mark.parametrize("command", ["list", "replay"])
def test_only_the_codes_of_dead_letters_can_be_selected(command: str) -> None:
    """No dead letter has the code of a refusal."""
    refusal = _refusal(f"dead-letters {command} --code sold_out")

    assert "'sold_out' is not one of 'poison', 'exhausted'" in refusal


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--quantity 0", "should be greater than or equal to 1"),
        ("--quantity 1 --opens-at 2030-01-01T12:00:00", "a time needs its zone"),
        ("--quantity 1 --opens-at noon", "Invalid isoformat string"),
        ("--quantity 1 --opens-at 1969-01-01T00:00Z", "must lie between the years 1970 and 9998"),
        ("--quantity 1 --opens-at 2030-01-02T00:00Z --closes-at 2030-01-02T00:00Z", "must be after --opens-at"),
    ],
)
def test_a_coupon_is_created_by_the_rules_of_the_api(options: str, message: str) -> None:
    assert message in _refusal(f"coupon create Noon {options}")


def test_a_name_is_checked_as_in_the_api() -> None:
    """Also when a coupon is renamed or searched for."""
    for arguments in ("create \u2029 --quantity 1", "change 1 --name \u2029", "list --name \u2029"):
        assert "name must not contain U+2029" in _refusal(f"coupon {arguments}")


def test_a_change_names_what_it_changes() -> None:
    assert "Name what to change" in _refusal("coupon change 1")


def test_an_export_has_one_form() -> None:
    assert "--json cannot be combined with --format csv." in _refusal("coupon export 1 --json --format csv")


def test_every_command_can_print_json() -> None:
    commands = dict(_commands("coupons", get_command(app)))

    assert {"coupons migrate", "coupons coupon list", "coupons log show"} <= commands.keys()
    without = [name for name, command in commands.items() if "--json" not in _options(command)]
    assert without == []


def _commands(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """Yield each command that is not a group, with its full name."""
    if not hasattr(command, "commands"):
        yield name, command
        return
    for part, subcommand in command.commands.items():
        yield from _commands(f"{name} {part}", subcommand)


def _options(command: Any) -> set[str]:
    return {option for parameter in command.params for option in parameter.opts}


def _refusal(arguments: str) -> str:
    """Return the error message of a command with invalid options, without the frame and the line breaks."""
    ended = CliRunner().invoke(app, arguments.split(" "))
    assert ended.exit_code == 2
    return " ".join(ended.output.replace("│", " ").split())
