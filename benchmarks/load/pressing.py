"""Runs the generator from an experiment, and lets no answer pass that was not expected."""

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from benchmarks.load.plan import STATUS_ACCEPTED, Plan, Pressed
from stack.parts.surroundings import ROOT

_COMMAND = (sys.executable, "-m", "benchmarks.load")
_ANSWER_SECONDS = 180.0


def press(plan: Plan, expected: int = STATUS_ACCEPTED) -> Pressed:
    """What became of a plan; raises AssertionError unless every answer has the expected status.

    The two processes speak through files: behind uvloop's back, a pipe was seen to lose the end of a long text.
    """
    with TemporaryDirectory(prefix="coupons-load-") as directory:
        told, done = Path(directory, "plan"), Path(directory, "pressed")
        told.write_bytes(msgspec.json.encode(plan))
        subprocess.run([*_COMMAND, str(told), str(done)], cwd=ROOT, check=True, timeout=_ANSWER_SECONDS)
        pressed = msgspec.json.decode(done.read_bytes(), type=Pressed)
    assert set(pressed.statuses) == {expected}, f"answers were {pressed.statuses}, not {expected}"
    return pressed
