"""Environment of the demo: an empty stack in a directory of its own, and the signals that stop it."""

import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from stack import directory_lock
from stack.local import LocalStack
from stack.settings import ISOLATED
from stack.startup import EVERYTHING
from testkit.webhook_receiver import WebhookReceiver

DIRECTORY = Path(".stack/demo")
#: the stack's lock file: it stays, since removing it would let two stacks lock the directory
LOCK = "lock"
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def started(console: Console, receiver: WebhookReceiver) -> Iterator[LocalStack]:
    """Run a stack without any state of an earlier demo; raises StackError if it cannot start.

    Signals are ignored while the stack stops, so that every process ends in order.
    """
    clear(DIRECTORY)
    variables = {"FAULT_INJECTION": "true", "WEBHOOK_URL": receiver.url, "WEBHOOK_SECRET": receiver.secret}
    with LocalStack(
        DIRECTORY, EVERYTHING, ISOLATED | variables, on_message=lambda line: console.print(line, style="dim")
    ) as stack:
        try:
            yield stack
        finally:
            for number in STOP_SIGNALS:
                signal.signal(number, signal.SIG_IGN)


def clear(directory: Path) -> None:
    """Remove what an earlier demo left; raises AlreadyRunning while another demo runs in this directory."""
    directory.mkdir(parents=True, exist_ok=True)
    with directory_lock.hold(directory):
        for entry in directory.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry.name != LOCK:
                entry.unlink()


def stop_on_signals() -> None:
    """Turn each stop signal into a KeyboardInterrupt, which asyncio raises between two steps, never within one."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in STOP_SIGNALS[1:]:
        if signal.getsignal(number) != signal.SIG_IGN:  # ignored under nohup, on purpose
            signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))
