"""What runs and in which order: the servers side by side, then the migration, then the processes side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stack import logs
from stack.errors import StackError
from stack.part import Part
from stack.parts import kafka, postgres, processes, valkey
from stack.supervisor import Supervisor

PARTS = ("kafka", "postgres", "valkey")
PROCESSES = ("api", "issuer", "worker", "beat", "flower")
EVERYTHING = (*PARTS, "migrate", *PROCESSES)


@dataclass(frozen=True)
class Plan:
    """One stack's directory, ports and environment: all that its parts are made from."""

    directory: Path
    ports: Mapping[str, int]
    environment: Mapping[str, str]

    @property
    def logs(self) -> Path:
        """The directory of the log files."""
        return self.directory / "log"

    def carry_out(self, supervisor: Supervisor, names: Sequence[str]) -> None:
        """Starts the named parts; raises CannotStart for the first that cannot."""
        for name in names:
            logs.put_aside(self.logs / f"{name}.log")
        supervisor.start([self.part(name) for name in PARTS if name in names])
        if "migrate" in names:
            supervisor.run(self.part("migrate"))
        supervisor.start([self.part(name) for name in PROCESSES if name in names and name != "flower"])
        if "flower" in names:  # last: it asks the workers who they are once, when it starts
            supervisor.start([self.part("flower")])

    def part(self, name: str) -> Part:
        """A server or a process by its name; raises StackError for any other name."""
        if name in PARTS:
            return self._server(name)
        return self._process(name)

    def _server(self, name: str) -> Part:
        home, port = self.directory / name, self.ports[name]
        if name == "kafka":
            return kafka.part(home, port, self.ports["kafka_controller"])
        return postgres.part(home, port) if name == "postgres" else valkey.part(home, port)

    def _process(self, name: str) -> Part:
        log = self.logs / f"{name}.log"
        match name:
            case "migrate":
                return processes.migrate(self.environment)
            case "api":
                return processes.api(self.environment)
            case "issuer":
                return processes.issuer(self.environment)
            case "worker":
                return processes.worker(self.environment, log)
            case "beat":
                return processes.beat(self.environment)
            case "flower":
                return processes.flower(self.environment)
        raise StackError(f"there is no part {name}: choose from {', '.join(EVERYTHING)}")
