"""The local stack as a value: `with LocalStack(directory) as stack` starts it, gives its addresses, and stops it."""

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from stack import jars, ports, settings, single
from stack.errors import StackError
from stack.files import write_exports
from stack.guard import Guard
from stack.journal import Journal
from stack.launch import Launcher
from stack.part import Part
from stack.parts import processes
from stack.plan import PARTS, Plan
from stack.supervisor import Supervisor

BACK_WITHIN_SECONDS = 60.0


class LocalStack:
    """Real parts and processes in one directory; what they keep survives until the directory is deleted."""

    def __init__(
        self,
        directory: Path,
        names: Iterable[str] = PARTS,
        variables: Mapping[str, str] | None = None,
        preferred_ports: Mapping[str, int] | None = None,
        tell: Callable[[str], object] | None = None,
    ) -> None:
        """Says what to run: `names` of parts and processes, with `variables` added to the environment.

        A part whose address the environment gives is used and not started. `tell` hears what happens, line by line.
        """
        self.directory = directory.resolve()
        self.environment: dict[str, str] = {}
        self._given = {**os.environ, **(variables or {})}
        self._wanted = tuple(names)
        self._names = settings.to_start(self._wanted, self._given)
        self._preferred_ports = preferred_ports or {}
        self._tell = tell
        self._undo = ExitStack()
        self._supervisor: Supervisor | None = None

    def __enter__(self) -> Self:
        """Starts the stack, see `up`."""
        self.up()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Stops the stack, see `down`."""
        self.down()

    def up(self) -> None:
        """Starts everything and waits for its health; whatever it raises, nothing is left running.

        Raises AlreadyRunning, PortTaken, CannotStart, or another StackError that says what to do.
        """
        logs = self.directory / "log"
        logs.mkdir(parents=True, exist_ok=True)
        with ExitStack() as undo:
            lock = undo.enter_context(single.held(self.directory))
            chosen = settings.choose_ports(
                self.directory / "ports.json", self._names, self._given, self._preferred_ports
            )
            self.environment = settings.environment(self.directory, chosen, self._given)
            journal = undo.enter_context(Journal(logs / "stack.log", self._tell))
            guard = undo.enter_context(Guard(self.directory / "env", journal.file, lock))
            self._supervisor = undo.enter_context(Supervisor(Launcher(logs, guard), journal.say))
            self._announce(journal)
            Plan(self.directory, chosen, self.environment).carry_out(self._supervisor, self._names)
            write_exports(self.directory / "env", settings.exports(self.environment))
            self._undo = undo.pop_all()

    def down(self) -> None:
        """Stops everything in reverse order; a second call does nothing."""
        self._undo.close()

    @property
    def kafka_bootstrap_servers(self) -> str:
        """Where Kafka is, host:port."""
        return self.environment["KAFKA_BOOTSTRAP_SERVERS"]

    @property
    def database_url(self) -> str:
        """Where PostgreSQL is."""
        return self.environment["DATABASE_URL"]

    @property
    def redis_url(self) -> str:
        """Where the gate's Valkey is."""
        return self.environment["REDIS_URL"]

    @property
    def celery_broker_url(self) -> str:
        """Where Celery's broker is."""
        return self.environment["CELERY_BROKER_URL"]

    @property
    def api_url(self) -> str:
        """Where the API is, without a slash at the end."""
        return self.environment["API_URL"]

    @property
    def issuer_url(self) -> str:
        """Where the issuer answers for itself, without a slash at the end."""
        return self.environment["ISSUER_URL"]

    @property
    def flower_url(self) -> str:
        """Where Flower is, without a slash at the end."""
        return self.environment["FLOWER_URL"]

    def start(self, name: str) -> None:
        """Starts a part that was stopped, and waits for its health; raises CannotStart."""
        self._running.keeper(name).start()

    def stop(self, name: str) -> None:
        """Stops a part as a shutdown does; it stays away until it is started."""
        self._running.keeper(name).stop()

    def restart(self, name: str) -> None:
        """Stops a part, starts it and waits for its health; raises CannotStart."""
        self.stop(name)
        self.start(name)

    def kill(self, name: str) -> None:
        """Kills a part and all it started with SIGKILL; the supervisor starts it again after half a second."""
        self._running.keeper(name).kill()

    def wait_up(self, name: str, timeout_seconds: float = BACK_WITHIN_SECONDS) -> None:
        """Waits until a killed part is healthy again; raises StackError after the timeout."""
        self._running.keeper(name).wait_up(timeout_seconds)

    def pid(self, name: str) -> int:
        """A part's process id, which is its process group's too; raises StackError while it does not run."""
        return self._running.keeper(name).pid

    def add(self, part: Part) -> None:
        """Starts one more part, stopped before all others; raises CannotStart."""
        self._running.start([part])

    def add_issuer(self, instance: str) -> str:
        """Starts one more issuer, a part of that name, and returns its URL; raises CannotStart."""
        port = ports.any_free()
        self.add(
            processes.issuer({**self.environment, "ISSUER_INSTANCE": instance, "ISSUER_PORT": str(port)}, instance)
        )
        return f"http://127.0.0.1:{port}"

    def _announce(self, journal: Journal) -> None:
        for name in PARTS:
            if name in self._wanted and name not in self._names:
                journal.say(f"{name:<9} given, not started")
        if "kafka" in self._names and not jars.all_there():
            journal.say("kafka     fetching its jars, once, about 40 MB")

    @property
    def _running(self) -> Supervisor:
        if self._supervisor is None:
            raise StackError("the stack is not up")
        return self._supervisor
