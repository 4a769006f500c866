"""A part: one long-running process of the local stack, how it is started, judged and stopped."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from signal import SIGTERM

Run = Callable[[Sequence[str]], None]
"""Runs a command to its end with a part's environment and log; raises CannotStart unless it exits with 0."""


def nothing_to_prepare(run: Run) -> None:
    """The preparation of a part that needs none."""


def healthy_at_once() -> bool:
    """The health of a part that is judged by its exit status alone."""
    return True


@dataclass(frozen=True)
class Part:
    """One process; `prepare` comes before every start, `healthy` is asked until it says yes."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path
    healthy: Callable[[], bool] = healthy_at_once
    prepare: Callable[[Run], None] = nothing_to_prepare
    stop_signal: int = SIGTERM
    stop_timeout_seconds: float = 10.0
    start_timeout_seconds: float = 60.0
