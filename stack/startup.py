"""Which processes a stack runs, their start order, and how each specification is built from ports and environment."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stack import app_processes, logs, settings
from stack.credentials import Credentials
from stack.errors import StackError
from stack.process_spec import ProcessSpec
from stack.secured import (
    BROKER,
    LISTENER,
    MUTUAL_LISTENER,
    MUTUAL_PORT,
    OAUTH_LISTENER,
    OAUTH_PORT,
    REDIS_ACLS,
    TLS_PROXIES,
    Secured,
)
from stack.servers import kafka, postgres, tls_proxy, valkey
from stack.servers.kafka_node import DIRECT, Cluster, Listener, Node
from stack.supervisor import Supervisor

SERVERS = ("kafka", "postgres", "valkey")
SERVER_PROCESSES = (*settings.KAFKA_NODES, "postgres", "valkey", BROKER)
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
    #: None: the stack is not secured
    secured: Secured | None = None

    def spec(self, name: str) -> ProcessSpec:
        """Return a process's specification; raises StackError for an unknown name."""
        if name in settings.KAFKA_NODES:
            return kafka.spec(name, self._kafka_node(name), self.secured)
        if name == "postgres":
            return postgres.spec(self._data_directory(name), self.ports[name], self.credentials)
        if name in REDIS_ACLS:
            acl = self.secured.redis_acl(name) if self.secured else None
            return valkey.spec(self._data_directory(name), self.ports[name], self.credentials.valkey, name, acl=acl)
        if name in TLS_PROXIES and self.secured:
            files = self.secured.server.both_file, self.secured.ca_file
            return tls_proxy.spec(name, self.ports[name], self.ports[TLS_PROXIES[name]], *files)
        return self._app_process(name)

    def _data_directory(self, name: str) -> Path:
        return self.directories.get(name, self.directory / name).resolve()

    def _kafka_node(self, name: str) -> Node:
        nodes = [node for node in settings.KAFKA_NODES if node in self.ports]
        cluster_id = kafka.load_or_create_cluster_id(self.directory / "kafka_cluster_id")
        cluster = Cluster(cluster_id, [self.ports[f"{node}_controller"] for node in nodes])
        listeners = self._secured_listeners(name) or [Listener(DIRECT, self.ports[name], self.ports[name])]
        for proxy, advertised_port in self.kafka_proxies.items():
            port = self.ports[settings.proxy_port_name(proxy)]
            listeners.append(Listener(f"PROXY_{proxy.upper()}", port, advertised_port))
        security = self.secured.kafka_properties() if self.secured else ""
        return Node(nodes.index(name) + 1, self._data_directory(name), listeners, cluster, security)

    def _secured_listeners(self, name: str) -> list[Listener]:
        if self.secured is None:
            return []
        found = [
            Listener(LISTENER, self.ports[name], self.ports[name], "SASL_SSL"),
            Listener(MUTUAL_LISTENER, self.ports[MUTUAL_PORT], self.ports[MUTUAL_PORT], "SSL"),
        ]
        if port := self.ports.get(OAUTH_PORT):
            found.append(Listener(OAUTH_LISTENER, port, port, "SASL_SSL"))
        return found

    def _app_process(self, name: str) -> ProcessSpec:
        own = self.secured.environment(name, self.ports) if self.secured else {}
        environment = {**self.environment, **own, **self.overrides.get(name, {})}
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
    supervisor.start([factory.spec(name) for name in names if name in (*SERVER_PROCESSES, *TLS_PROXIES)])
    if "migrate" in names:
        supervisor.run(factory.spec("migrate"))
    supervisor.start([factory.spec(name) for name in APP_PROCESSES if name in names and name != "flower"])
    if "flower" in names:  # last: Flower queries the worker names once, at its start
        supervisor.start([factory.spec("flower")])
