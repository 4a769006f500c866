"""A consumer group of child processes, each writing a file of its own, and what may happen to one of them."""

import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.pauses import Account, Process, Read

_GONE_SECONDS = 20.0


class Group:
    """Members by name; one that is started again under its name is another process with another file."""

    def __init__(self, directory: Path, topic: str, config: Mapping[str, Any], *, static: bool) -> None:
        directory.mkdir(parents=True)
        self._directory = directory
        self._topic = topic
        self._config = config
        self._static = static
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._started = 0

    def start(self, name: str) -> None:
        """Starts a member."""
        self._started += 1
        config = {**self._config, **({"group.instance.id": name} if self._static else {})}
        command = [sys.executable, "-m", "benchmarks.member", json.dumps([self._topic, config])]
        log = self._directory.with_suffix(".log")
        with (self._directory / f"{name}.{self._started}").open("wb") as told, log.open("ab") as complaints:
            self._running[name] = subprocess.Popen(command, stdout=told, stderr=complaints)

    def leave(self, name: str) -> None:
        """Ends a member in order."""
        self._end(name, signal.SIGTERM)

    def kill(self, name: str) -> None:
        """Ends a member at once."""
        self._end(name, signal.SIGKILL)

    def restart(self, name: str) -> None:
        """Ends a member in order and starts it again."""
        self.leave(name)
        self.start(name)

    def kill_and_restart(self, name: str) -> None:
        """Ends a member at once and starts it again."""
        self.kill(name)
        self.start(name)

    def freeze(self, name: str) -> None:
        """Stops a member where it is."""
        self._running[name].send_signal(signal.SIGSTOP)

    def wake(self, name: str) -> None:
        """Lets a frozen member go on."""
        self._running[name].send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Ends every member."""
        for name in list(self._running):
            self.kill(name)

    def account(self) -> Account:
        """What all members have written so far."""
        account = Account()
        for path in self._directory.iterdir():
            member, _, number = path.name.rpartition(".")
            for line in path.read_text().splitlines():
                _note(account, Process(member, int(number)), line)
        return account

    def _end(self, name: str, number: int) -> None:
        member = self._running.pop(name)
        member.send_signal(number)
        member.wait(_GONE_SECONDS)


def _note(account: Account, process: Process, line: str) -> None:
    try:
        at, what, *more = json.loads(line)
    except json.JSONDecodeError:  # the last line of one that was killed
        return
    if what == "read":
        partition, offset, produced = more
        account.reads.append(Read(partition, offset, process, produced, at))
    elif what != "failed" and more:
        account.changes.append(at)
