"""Runs the generator from an experiment, and lets no answer pass that was not expected."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from benchmarks.load.plan import STATUS_ACCEPTED, Plan, Pressed
from stack.parts.surroundings import ROOT

_COMMAND = (sys.executable, "-m", "benchmarks.load")
_ANSWER_SECONDS = 180.0


def press(plan: Plan, expected: int = STATUS_ACCEPTED) -> Pressed:
    """What became of a plan; raises AssertionError unless every answer has the expected status."""
    with pressing(plan, expected) as running:
        return running.result()


class Running:
    """A generator at work."""

    def __init__(self, process: "subprocess.Popen[bytes]", expected: int) -> None:
        self.pid = process.pid
        self._process = process
        self._expected = expected

    def result(self) -> Pressed:
        """Waits for its end; raises AssertionError unless every answer has the expected status."""
        told, _ = self._process.communicate(timeout=_ANSWER_SECONDS)
        assert self._process.returncode == 0, f"the generator ended with {self._process.returncode}"
        assert told, "the generator said nothing"
        pressed = msgspec.json.decode(told, type=Pressed)
        assert set(pressed.statuses) == {self._expected}, f"answers were {pressed.statuses}, not {self._expected}"
        return pressed


@contextmanager
def pressing(plan: Plan, expected: int = STATUS_ACCEPTED) -> Iterator[Running]:
    """Starts the generator; it is ended with the block, if it runs that long."""
    process = subprocess.Popen(_COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)
    try:
        assert process.stdin
        process.stdin.write(msgspec.json.encode(plan))
        process.stdin.close()
        process.stdin = None
        yield Running(process, expected)
    finally:
        process.kill()
        process.wait()
