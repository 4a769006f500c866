"""The local stack as a value: `with LocalStack(directory) as stack` starts it, gives its addresses, and stops it."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self, TypeVar

from stack import jars, memory, ports, settings, single
from stack.errors import StackError
from stack.files import write_exports
from stack.guard import Guard
from stack.handle import Handle
from stack.journal import Journal
from stack.launch import Launcher
from stack.parts import processes
from stack.plan import PARTS, PROCESSES, SERVERS, Plan
from stack.supervisor import Supervisor

Value = TypeVar("Value")


class LocalStack(Handle):
    """Real parts and processes in one directory; what they keep survives until the directory is deleted."""

    def __init__(
        self,
        directory: Path,
        names: Iterable[str] = PARTS,
        variables: Mapping[str, str] | None = None,
        preferred_ports: Mapping[str, int] | None = None,
        tell: Callable[[str], object] | None = None,
        overrides: Mapping[str, Mapping[str, str]] | None = None,
        directories: Mapping[str, Path] | None = None,
        kafka_proxies: Mapping[str, int] | None = None,
    ) -> None:
        """Says what to run: `names` of parts and processes, with `variables` added to the environment.

        A part whose address the environment gives is used and not started. `tell` hears what happens, line by line.
        `overrides` are variables of single processes. `directories` are places of single parts' data; it is made
        there, its parent must exist. `kafka_proxies` are ports under which Kafka is reached through a proxy: for each
        it listens on one more port, see `kafka_port`. With the variable KAFKA_BROKERS=3 the part kafka is three:
        kafka-1, kafka-2 and kafka-3.
        Raises StackError if an override or a directory is for something that is not among the names.
        """
        super().__init__()
        self.directory = directory.resolve()
        self._given = {**os.environ, **(variables or {})}
        self._wanted = tuple(names)
        self._names = settings.to_start(self._wanted, self._given)
        self._preferred_ports = preferred_ports or {}
        self._tell = tell
        self._overrides = _among(self._names, overrides or {}, PROCESSES)
        self._directories = _among(self._names, directories or {}, SERVERS)
        self._kafka_proxies = kafka_proxies or {}
        self._ports: Mapping[str, int] = {}
        self._undo = ExitStack()

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
        self._check_brokers()
        logs = self.directory / "log"
        logs.mkdir(parents=True, exist_ok=True)
        with ExitStack() as undo:
            lock = undo.enter_context(single.held(self.directory))
            listening = settings.listening(self._names, self._kafka_proxies)
            remembered = self.directory / "ports.json"
            self._ports = settings.choose_ports(remembered, listening, self._given, self._preferred_ports)
            self.environment = settings.environment(self.directory, self._ports, self._given)
            journal = undo.enter_context(Journal(logs / "stack.log", self._tell))
            guard = undo.enter_context(Guard(self.directory / "env", journal.file, lock))
            self._supervisor = undo.enter_context(Supervisor(Launcher(logs, guard), journal.say))
            self._announce(journal)
            self._plan().carry_out(self._supervisor, self._names)
            write_exports(self.directory / "env", settings.exports(self.environment))
            self._undo = undo.pop_all()

    def down(self) -> None:
        """Stops everything in reverse order; a second call does nothing."""
        self._undo.close()

    @property
    def names(self) -> tuple[str, ...]:
        """The parts and processes that run as long as it does."""
        return tuple(name for name in self._names if name != "migrate")

    def kafka_port(self, proxy: str) -> int:
        """The port on which Kafka listens for one of `kafka_proxies`; raises StackError for any other."""
        try:
            return self._ports[settings.proxied(proxy)]
        except KeyError:
            raise StackError(f"Kafka does not listen for a proxy {proxy}: name it in kafka_proxies") from None

    def add_issuer(self, instance: str, overrides: Mapping[str, str] | None = None) -> str:
        """Starts one more issuer, a part of that name, with variables of its own, and returns its URL.

        Raises CannotStart.
        """
        port = ports.any_free()
        its_own = {"ISSUER_INSTANCE": instance, "ISSUER_PORT": str(port), **(overrides or {})}
        self.add(processes.issuer({**self.environment, **its_own}, instance))
        return f"http://127.0.0.1:{port}"

    def _check_brokers(self) -> None:
        brokers = sum(name in settings.KAFKA for name in self._names)
        if brokers > 1 and self._kafka_proxies:
            raise StackError("a Kafka proxy leads to one broker: unset KAFKA_BROKERS")
        if brokers and (missing := memory.lack(brokers)):
            raise StackError(missing)

    def _plan(self) -> Plan:
        return Plan(
            self.directory, self._ports, self.environment, self._overrides, self._directories, self._kafka_proxies
        )

    def _announce(self, journal: Journal) -> None:
        for name in PARTS:
            if name in self._wanted and settings.is_given(name, self._given):
                journal.say(f"{name:<9} given, not started")
        if "flower" in self._wanted and "flower" not in self._names:
            journal.say("flower    sees nothing over Kafka, not started")
        if any(name in settings.KAFKA for name in self._names) and not jars.all_there():
            journal.say("kafka     fetching its jars, once, about 40 MB")


def _among(wanted: Sequence[str], meant: Mapping[str, Value], kind: Sequence[str]) -> dict[str, Value]:
    """What is meant for members of a kind; raises StackError if one of them is not wanted."""
    running = [name for name in kind if name in wanted]
    for name in meant:
        if name not in running:
            raise StackError(f"this stack does not run {name}: choose from {', '.join(running)}")
    return dict(meant)
