"""The demo starts from nothing, in its own directory only, and shows how far it is."""

from pathlib import Path

import pytest
from rich.console import Console

from demo import progress
from demo.ground import empty
from demo.progress import Tick
from demo.records import malformed, springs
from stack import settings, single
from stack.errors import AlreadyRunning
from stack.plan import EVERYTHING


def test_what_an_earlier_demo_left_is_removed_and_nothing_beyond_it(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    demo = tmp_path / "demo"
    (demo / "postgres" / "base").mkdir(parents=True)
    (demo / "history.jsonl").touch()
    (demo / "link").symlink_to(outside)
    empty(demo)
    assert [entry.name for entry in demo.iterdir()] == ["lock"]
    assert (outside / "kept").exists()


def test_a_demo_that_runs_keeps_its_state(tmp_path: Path) -> None:
    with single.held(tmp_path):
        (tmp_path / "history.jsonl").touch()
        with pytest.raises(AlreadyRunning):
            empty(tmp_path)
        assert (tmp_path / "history.jsonl").exists()


def test_no_address_that_the_shell_names_is_used() -> None:
    shell = {name: "elsewhere" for names in settings.ADDRESSES.values() for name in names}
    assert settings.to_start(EVERYTHING, shell | settings.OWN) == list(EVERYTHING)


def test_without_a_terminal_progress_is_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.shown(Console(), "the race", lambda: Tick(1_000, 5_250, "accepted 900")):
        pass
    assert capsys.readouterr().out == "the race 1,000/5,250 · accepted 900\n"


def test_the_malformed_records_differ_from_the_sound_one_each_in_its_own_way() -> None:
    sound = springs(coupon_id=1, user_id=7)
    assert len({*malformed(sound, elsewhere=3), sound}) == 6
