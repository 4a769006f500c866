"""The ground the demo stands on: a fresh stack of its own and the receiver of its notices."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from demo import signals
from demo.receiver import Receiver, listening
from stack import single
from stack.local import LocalStack
from stack.plan import EVERYTHING
from stack.settings import OWN

DIRECTORY = Path(".stack/demo")
LOCK = "lock"  # the stack's own; were it removed, two could hold it


@contextmanager
def prepared(console: Console, receiver: Receiver) -> Iterator[LocalStack]:
    """Runs a stack that knows nothing of an earlier demo; raises StackError where it cannot."""
    empty(DIRECTORY)
    with listening(receiver) as url:
        told = {"FAULT_INJECTION": "true", "WEBHOOK_URL": url, "WEBHOOK_SECRET": receiver.secret}
        with LocalStack(DIRECTORY, EVERYTHING, OWN | told, tell=lambda line: console.print(line, style="dim")) as stack:
            try:
                yield stack
            finally:
                signals.ignore()


def empty(directory: Path) -> None:
    """Removes what an earlier demo left; raises AlreadyRunning while another one runs in this directory."""
    directory.mkdir(parents=True, exist_ok=True)
    with single.held(directory):
        for entry in directory.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry.name != LOCK:
                entry.unlink()
