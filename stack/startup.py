"""Which processes a stack runs, their start order, and how each specification is built from ports and environment."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stack import app_processes, logs, settings
from stack.credentials import Credentials
from stack.errors import StackError
from stack.process_spec import ProcessSpec
from stack.servers import kafka, postgres, valkey
from stack.servers.kafka_node import DIRECT, Cluster, Listener, Node
from stack.supervisor import Supervisor

SERVERS = ("kafka", "postgres", "valkey")
SERVER_PROCESSES = (*settings.KAFKA_NODES, "postgres", "valkey")
APP_PROCESSES = ("api", "issuer", "worker", "beat", "flower")
EVERYTHING = (*SERVERS, "migrate", *APP_PROCESSES)


@dataclass(frozen=True)
class ProcessFactory:
    """Builds the specification of each process of one stack."""

    directory: Path
    ports: Mapping[str, int]
    environment: Mapping[str, str]
    credentials: Credentials
    overrides: Mapping[str, Mapping[str, str]]
    directories: Mapping[str, Path]
    kafka_proxies: Mapping[str, int]

    def spec(self, name: str) -> ProcessSpec:
        """Return a process's specification; raises StackError for an unknown name."""
        if name in settings.KAFKA_NODES:
            return kafka.spec(name, self._kafka_node(name))
        if name == "postgres":
            return postgres.spec(self._data_directory(name), self.ports[name], self.credentials)
        if name == "valkey":
            return valkey.spec(self._data_directory(name), self.ports[name], self.credentials.valkey)
        return self._app_process(name)

    def _data_directory(self, name: str) -> Path:
        return self.directories.get(name, self.directory / name).resolve()

    def _kafka_node(self, name: str) -> Node:
        nodes = [node for node in settings.KAFKA_NODES if node in self.ports]
        cluster_id = kafka.load_or_create_cluster_id(self.directory / "kafka_cluster_id")
        cluster = Cluster(cluster_id, [self.ports[f"{node}_controller"] for node in nodes])
        listeners = [Listener(DIRECT, self.ports[name], self.ports[name])]
        for proxy, advertised_port in self.kafka_proxies.items():
            port = self.ports[settings.proxy_port_name(proxy)]
            listeners.append(Listener(f"PROXY_{proxy.upper()}", port, advertised_port))
        return Node(nodes.index(name) + 1, self._data_directory(name), listeners, cluster)

    def _app_process(self, name: str) -> ProcessSpec:
        environment = {**self.environment, **self.overrides.get(name, {})}
        match name:
            case "migrate":
                return app_processes.migrate(environment)
            case "api":
                return app_processes.api(environment)
            case "issuer":
                return app_processes.issuer(environment)
            case "worker":
                return app_processes.worker(environment, self.directory / "log" / "worker.log")
            case "beat":
                return app_processes.beat(environment)
            case "flower":
                return app_processes.flower(environment, self.directory / "flower")
        raise StackError(f"there is no process {name}: choose from {', '.join(EVERYTHING)}")


def start_in_order(supervisor: Supervisor, factory: ProcessFactory, names: Sequence[str]) -> None:
    """Start the servers in parallel, run the migration, then start the application's processes in parallel.

    Raises CannotStart for the first process that fails.
    """
    for name in names:
        logs.rotate(factory.directory / "log" / f"{name}.log")
    supervisor.start([factory.spec(name) for name in names if name in SERVER_PROCESSES])
    if "migrate" in names:
        supervisor.run(factory.spec("migrate"))
    supervisor.start([factory.spec(name) for name in APP_PROCESSES if name in names and name != "flower"])
    if "flower" in names:  # last: Flower queries the worker names once, at its start
        supervisor.start([factory.spec("flower")])
