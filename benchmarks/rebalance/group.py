"""A consumer group of child processes. Each writes its assignments and reads to a file of its own."""

import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.rebalance.unavailability import GroupHistory, Process, RecordRead

_EXIT_TIMEOUT_SECONDS = 20.0


class Group:
    """Members by name. A restarted member is a new process with a new file."""

    def __init__(self, directory: Path, topic: str, config: Mapping[str, Any], *, static: bool) -> None:
        directory.mkdir(parents=True)
        self._directory = directory
        self._topic = topic
        self._config = config
        self._static = static
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._started = 0

    def start(self, name: str) -> None:
        """Start a member."""
        self._started += 1
        config = {**self._config, **({"group.instance.id": name} if self._static else {})}
        command = [sys.executable, "-m", "benchmarks.rebalance.member", json.dumps([self._topic, config])]
        log = self._directory.with_suffix(".log")
        with (self._directory / f"{name}.{self._started}").open("wb") as output, log.open("ab") as errors:
            self._running[name] = subprocess.Popen(command, stdout=output, stderr=errors)

    def stop(self, name: str) -> None:
        """Stop a member gracefully: it leaves the group, unless it is static."""
        self._end(name, signal.SIGTERM)

    def kill(self, name: str) -> None:
        """Kill a member."""
        self._end(name, signal.SIGKILL)

    def restart(self, name: str) -> None:
        """Stop a member gracefully and start it again."""
        self.stop(name)
        self.start(name)

    def kill_and_restart(self, name: str) -> None:
        """Kill a member and start it again."""
        self.kill(name)
        self.start(name)

    def suspend(self, name: str) -> None:
        """Suspend a member with SIGSTOP."""
        self._running[name].send_signal(signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """Resume a suspended member."""
        self._running[name].send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Kill every member."""
        for name in list(self._running):
            self.kill(name)

    def history(self) -> GroupHistory:
        """Read what all members have written so far."""
        history = GroupHistory()
        for path in self._directory.iterdir():
            member, _, number = path.name.rpartition(".")
            for line in path.read_text().splitlines():
                _add_line(history, Process(member, int(number)), line)
        return history

    def _end(self, name: str, number: int) -> None:
        member = self._running.pop(name)
        member.send_signal(number)
        member.wait(_EXIT_TIMEOUT_SECONDS)


def _add_line(history: GroupHistory, process: Process, line: str) -> None:
    try:
        at, event, *details = json.loads(line)
    except json.JSONDecodeError:  # an incomplete last line: the process was killed
        return
    if event == "read":
        partition, offset, produced = details
        history.reads.append(RecordRead(partition, offset, process, produced, at))
    elif event != "failed" and details:
        history.changes.append(at)
