"""The demo starts from an empty directory of its own and shows its progress."""

from pathlib import Path

import pytest
from rich.console import Console

from demo.environment import clear
from demo.foreign_producer import malformed_records, spring_record
from demo.progress import Tick, show_progress
from stack import directory_lock, settings
from stack.errors import AlreadyRunning
from stack.startup import EVERYTHING


def test_the_state_of_an_earlier_demo_is_removed_and_nothing_outside_it(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    demo = tmp_path / "demo"
    (demo / "postgres" / "base").mkdir(parents=True)
    (demo / "history.jsonl").touch()
    (demo / "link").symlink_to(outside)
    clear(demo)
    assert [entry.name for entry in demo.iterdir()] == ["lock"]
    assert (outside / "kept").exists()


def test_a_running_demo_keeps_its_state(tmp_path: Path) -> None:
    with directory_lock.hold(tmp_path):
        (tmp_path / "history.jsonl").touch()
        with pytest.raises(AlreadyRunning):
            clear(tmp_path)
        assert (tmp_path / "history.jsonl").exists()


def test_addresses_in_the_shells_environment_are_not_used() -> None:
    shell = {name: "elsewhere" for names in settings.ADDRESSES.values() for name in names}
    assert settings.processes_to_start(EVERYTHING, shell | settings.ISOLATED) == list(EVERYTHING)


def test_without_a_terminal_progress_is_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress(Console(), "requests", lambda: Tick(1_000, 5_250, "accepted 900")):
        pass
    assert capsys.readouterr().out == "requests 1,000/5,250 · accepted 900\n"


def test_each_malformed_record_differs_from_the_valid_one_in_its_own_way() -> None:
    valid = spring_record(coupon_id=1, user_id=7)
    assert len({*malformed_records(valid, wrong_partition=3), valid}) == 6
