"""Output of commands: a table on a terminal, complete tab-separated cells elsewhere, and no control characters."""

import io
import json
import re
import sys

import pytest

from service.commands.console import Cell, Mark, print_json, print_line, print_rows
from service.domain.request import LogPosition

_HEADERS = ("Id", "Result", "Detail")
_LONG = "detail " * 40


class _Terminal(io.StringIO):
    """Standard output that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


def _on_terminal(monkeypatch: pytest.MonkeyPatch, *rows: tuple[Cell, ...], wrap_last: bool) -> list[str]:
    """Print rows on a terminal of 40 columns and return its lines without styles."""
    terminal = _Terminal()
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(sys, "stdout", terminal)
    print_rows(_HEADERS, rows, wrap_last=wrap_last)
    return [line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", terminal.getvalue()).splitlines() if line.strip()]


def test_rows_are_tab_separated_and_complete_off_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """A pipe receives each row as one line, without header and not shortened; an empty last cell is left out."""
    print_rows(_HEADERS, [(7, Mark.OK, _LONG), (8, Mark.BROKEN, "")])

    assert capsys.readouterr().out == f"7\tok\t{_LONG}\n8\tBROKEN\n"


def test_a_terminal_shows_headers_marks_and_shortened_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row takes one line of the terminal, whose last cell ends with an ellipsis if it does not fit."""
    header, _, first, second = _on_terminal(
        monkeypatch, (7, Mark.OK, _LONG), (8, Mark.BROKEN, "[red]short"), wrap_last=False
    )

    assert header.split() == list(_HEADERS)
    assert first.split()[:3] == ["7", "✓", "ok"]
    assert first.endswith("…")
    assert second.split() == ["8", "✗", "BROKEN", "[red]short"]


def test_a_terminal_shows_the_whole_last_cell_if_it_is_wrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers of a check are never cut off: they continue on the next line."""
    _, _, *lines = _on_terminal(monkeypatch, (7, Mark.OK, _LONG), wrap_last=True)

    assert len(lines) > 5
    assert " ".join(lines).split().count("detail") == 40


@pytest.mark.parametrize("foreign", ["\x1b[2J", "\x07", "a\tb\nc\r", "\x7f", "\x9b31m", "\u202eoops", "\ud800"])
def test_foreign_text_cannot_control_a_terminal(
    foreign: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Escape sequences, line breaks and reversed text from records are printed as their escapes."""
    shown = "".join(_on_terminal(monkeypatch, (7, Mark.OK, foreign), wrap_last=True))
    monkeypatch.undo()
    print_rows(_HEADERS, [(7, Mark.OK, foreign)])
    print_line(foreign)
    piped = capsys.readouterr().out

    assert shown.isprintable()
    assert piped.count("\n") == 2
    assert piped.replace("\n", "").replace("\t", "").isprintable()
    assert foreign.encode("unicode_escape").decode() in piped


def test_json_escapes_control_characters_and_keeps_their_values(capsys: pytest.CaptureFixture[str]) -> None:
    """JSON off and on a terminal is the same; named tuples are objects, whose fields a program reads by name."""
    value = {"error": "\x1b[2J\x9b31m\u202e 치킨", "at": LogPosition(1, 2), "ok": None}

    print_json(value)

    printed = capsys.readouterr().out
    assert printed.rstrip("\n").isprintable()
    assert "치킨" in printed
    assert json.loads(printed) == {**value, "at": {"partition": 1, "offset": 2}}
