"""What runs and in which order: the servers side by side, then the migration, then the processes side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stack import logs, settings
from stack.errors import StackError
from stack.part import Part
from stack.parts import kafka, postgres, processes, valkey
from stack.parts.kafka_node import ORDINARY, Cluster, Listener, Node
from stack.supervisor import Supervisor

PARTS = ("kafka", "postgres", "valkey")
PROCESSES = ("api", "issuer", "worker", "beat", "flower")
SERVERS = (*settings.KAFKA, "postgres", "valkey")
EVERYTHING = (*PARTS, "migrate", *PROCESSES)


@dataclass(frozen=True)
class Plan:
    """One stack's directory, ports and environment: all that its parts are made from."""

    directory: Path
    ports: Mapping[str, int]
    environment: Mapping[str, str]
    overrides: Mapping[str, Mapping[str, str]]
    directories: Mapping[str, Path]
    kafka_proxies: Mapping[str, int]

    @property
    def logs(self) -> Path:
        """The directory of the log files."""
        return self.directory / "log"

    def carry_out(self, supervisor: Supervisor, names: Sequence[str]) -> None:
        """Starts the named parts; raises CannotStart for the first that cannot."""
        for name in names:
            logs.put_aside(self.logs / f"{name}.log")
        supervisor.start([self.part(name) for name in names if name in SERVERS])
        if "migrate" in names:
            supervisor.run(self.part("migrate"))
        supervisor.start([self.part(name) for name in PROCESSES if name in names and name != "flower"])
        if "flower" in names:  # last: it asks the workers who they are once, when it starts
            supervisor.start([self.part("flower")])

    def part(self, name: str) -> Part:
        """A server or a process by its name; raises StackError for any other name."""
        if name in settings.KAFKA:
            return kafka.part(name, self._kafka_node(name))
        if name in SERVERS:
            return self._server(name)
        return self._process(name)

    def _home(self, name: str) -> Path:
        return self.directories.get(name, self.directory / name).resolve()

    def _server(self, name: str) -> Part:
        home, port = self._home(name), self.ports[name]
        return postgres.part(home, port) if name == "postgres" else valkey.part(home, port)

    def _kafka_node(self, name: str) -> Node:
        nodes = [each for each in settings.KAFKA if each in self.ports]
        cluster_id = kafka.cluster_id(self.directory / "kafka_cluster_id")
        cluster = Cluster(cluster_id, [self.ports[f"{each}_controller"] for each in nodes])
        return Node(nodes.index(name) + 1, self._home(name), self._kafka_listeners(name), cluster)

    def _kafka_listeners(self, name: str) -> list[Listener]:
        proxied = [
            Listener(f"PROXY_{proxy.upper()}", self.ports[settings.proxied(proxy)], advertised_port)
            for proxy, advertised_port in self.kafka_proxies.items()
        ]
        return [Listener(ORDINARY, self.ports[name], self.ports[name]), *proxied]

    def _process(self, name: str) -> Part:
        log = self.logs / f"{name}.log"
        environment = {**self.environment, **self.overrides.get(name, {})}
        match name:
            case "migrate":
                return processes.migrate(environment)
            case "api":
                return processes.api(environment)
            case "issuer":
                return processes.issuer(environment)
            case "worker":
                return processes.worker(environment, log)
            case "beat":
                return processes.beat(environment)
            case "flower":
                return processes.flower(environment)
        raise StackError(f"there is no part {name}: choose from {', '.join(EVERYTHING)}")
