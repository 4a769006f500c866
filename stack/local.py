"""A running local stack as a context manager: `with LocalStack(directory) as stack` starts it and stops it."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self, TypeVar

from stack import app_processes, directory_lock, jars, ports, settings
from stack.credentials import Credentials
from stack.errors import StackError
from stack.files import create_private_directory, write_exports
from stack.launcher import Launcher
from stack.logs import SupervisorLog
from stack.process_spec import ProcessSpec
from stack.reaper import Reaper
from stack.secured import BROKER, BROKER_TLS_PORT, GATE, GATE_TLS_PORT, Secured
from stack.server_env import LOOPBACK
from stack.servers import kafka, postgres
from stack.startup import APP_PROCESSES, SERVER_PROCESSES, SERVERS, ProcessFactory, start_in_order
from stack.supervisor import Supervisor

RESTART_TIMEOUT_SECONDS = 60.0

Value = TypeVar("Value")


class LocalStack:
    """Servers and application processes with their state in one directory, which survives until it is deleted.

    Methods that take a process name raise StackError if the stack is not running or does not run that process.
    """

    def __init__(
        self,
        directory: Path,
        names: Iterable[str] = SERVERS,
        variables: Mapping[str, str] | None = None,
        preferred_ports: Mapping[str, int] | None = None,
        on_message: Callable[[str], object] | None = None,
        overrides: Mapping[str, Mapping[str, str]] | None = None,
        directories: Mapping[str, Path] | None = None,
        kafka_proxies: Mapping[str, int] | None = None,
    ) -> None:
        """Configure a stack; nothing is started yet.

        `names` are the servers and processes to run. A server whose address the environment sets is external: it is
        used and not started. With KAFKA_BROKERS=3 the server kafka is three processes: kafka-1, kafka-2 and kafka-3.
        With SECURED=on Kafka and Valkey ask for TLS and passwords, see stack/secured.py.
        `variables` are added to the environment, `overrides` to that of single processes.
        `preferred_ports` are used for the named processes if they are free.
        `on_message` is called with each line of the supervisor's log.
        `directories` hold the data of single servers; a directory is created, its parent must exist.
        `kafka_proxies` maps a proxy's name to the port on which clients reach it. Kafka listens on one more port for
        each proxy, see `kafka_port`.
        Raises StackError if an override or a directory is for a process that this stack does not run, or if a file with
        a setting of the user cannot be read.
        """
        self.directory = directory.resolve()
        self.environment: dict[str, str] = {}
        self._user_env = settings.user_environment(os.environ, variables or {})
        self._requested = tuple(names)
        self._names = settings.processes_to_start(self._requested, self._user_env)
        self._preferred_ports = preferred_ports or {}
        self._on_message = on_message
        self._overrides = _require_running(overrides or {}, APP_PROCESSES, self._names)
        self._directories = _require_running(directories or {}, SERVER_PROCESSES, self._names)
        self._kafka_proxies = kafka_proxies or {}
        self._secured: Secured | None = None
        if self._is_secured and GATE in self._names:
            self._names.append(GATE_TLS_PORT)
            if not settings.is_celery_over_kafka(self._user_env):
                self._names += (BROKER, BROKER_TLS_PORT)
        self._ports: Mapping[str, int] = {}
        self._credentials: Credentials | None = None
        self._supervisor: Supervisor | None = None
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        """Start the stack, see `up`."""
        self.up()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Stop the stack, see `down`."""
        self.down()

    def up(self) -> None:
        """Start everything and wait until it is healthy. If this raises, nothing is left running.

        Raises AlreadyRunning, PortTaken, CannotStart, or another StackError.
        """
        self._check_brokers()
        logs = self.directory / "log"
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        create_private_directory(logs)
        with ExitStack() as undo:
            lock = undo.enter_context(directory_lock.hold(self.directory))
            if self._is_secured:
                self._secured = Secured.load_or_create(
                    self.directory / "secured",
                    oauth_keys_url=self._user_env.get(settings.OAUTH_KEYS_URL, ""),
                    log_rights=self._user_env.get(settings.LOG_RIGHTS) == "on",
                )
            port_names = settings.port_names(self._names, self._kafka_proxies)
            port_names += self._secured.port_names if self._secured else ()
            memory = self.directory / "ports.json"
            self._ports = settings.choose_ports(memory, port_names, self._user_env, self._preferred_ports)
            self._credentials = Credentials.load_or_create(self.directory / "secrets")
            self.environment = settings.process_environment(self._credentials, self._ports, self._user_env)
            if self._secured:
                self.environment |= self._secured.environment("operator", self._ports)
            log = undo.enter_context(SupervisorLog(logs / "stack.log", self._on_message))
            reaper = undo.enter_context(Reaper(self.directory / "env", log.file, lock))
            self._supervisor = undo.enter_context(Supervisor(Launcher(logs, reaper), log.write))
            self._log_not_started(log)
            factory = ProcessFactory(
                self.directory,
                self._ports,
                self.environment,
                self._credentials,
                self._overrides,
                self._directories,
                self._kafka_proxies,
                self._secured,
            )
            start_in_order(self._supervisor, factory, self._names)
            write_exports(self.directory / "env", settings.exports(self.environment))
            self._undo = undo.pop_all()

    def down(self) -> None:
        """Stop everything in reverse order; a second call has no effect."""
        self._undo.close()

    @property
    def names(self) -> tuple[str, ...]:
        """The processes that run until the stack is stopped."""
        return tuple(name for name in self._names if name != "migrate")

    @property
    def credentials(self) -> Credentials:
        """The passwords of the stack's servers; raises StackError before the first `up`."""
        if self._credentials is None:
            raise StackError("the stack has no credentials yet: call up() first")
        return self._credentials

    @property
    def secured(self) -> Secured:
        """The certificates and passwords of a secured stack; raises StackError if this one is not."""
        if self._secured is None:
            raise StackError("this stack is not secured: set SECURED=on, and call up() first")
        return self._secured

    @property
    def ports(self) -> Mapping[str, int]:
        """The ports of the servers and processes, by name."""
        return self._ports

    @property
    def kafka_bootstrap_servers(self) -> str:
        """Kafka's address: host:port of each broker, separated by commas."""
        return self.environment["KAFKA_BOOTSTRAP_SERVERS"]

    @property
    def database_url(self) -> str:
        """PostgreSQL's address, for the service's processes."""
        return self.environment["DATABASE_URL"]

    @property
    def admin_database_url(self) -> str:
        """PostgreSQL's address for its superuser; raises StackError if this stack does not run PostgreSQL."""
        if "postgres" not in self._ports:
            raise StackError("this stack does not run postgres")
        return postgres.admin_url(self._ports["postgres"], self.credentials)

    @property
    def redis_url(self) -> str:
        """The address of the gate's Valkey database."""
        return self.environment["REDIS_URL"]

    @property
    def celery_broker_url(self) -> str:
        """The address of Celery's broker."""
        return self.environment["CELERY_BROKER_URL"]

    @property
    def api_url(self) -> str:
        """The API's address, without a trailing slash."""
        return self.environment["API_URL"]

    @property
    def issuer_url(self) -> str:
        """The address of the issuer's readiness endpoint, without a trailing slash."""
        return self.environment["ISSUER_URL"]

    @property
    def flower_url(self) -> str:
        """Flower's address, without a trailing slash."""
        return self.environment["FLOWER_URL"]

    @property
    def flower_login(self) -> tuple[str, str]:
        """A user of Flower and the password."""
        user, _, password = self.environment["FLOWER_BASIC_AUTH"].split(",")[0].partition(":")
        return user, password

    def kafka_port(self, proxy: str) -> int:
        """Return the port on which Kafka listens for one of `kafka_proxies`; raises StackError for any other name."""
        try:
            return self._ports[settings.proxy_port_name(proxy)]
        except KeyError:
            raise StackError(f"Kafka does not listen for a proxy {proxy}: name it in kafka_proxies") from None

    def start(self, name: str) -> None:
        """Start a stopped process and wait until it is healthy; raises CannotStart."""
        self._running_supervisor.restarter(name).start()

    def stop(self, name: str) -> None:
        """Stop a process as a shutdown does; it is not restarted until `start`."""
        self._running_supervisor.restarter(name).stop()

    def restart(self, name: str) -> None:
        """Stop a process, start it and wait until it is healthy; raises CannotStart."""
        self.stop(name)
        self.start(name)

    def kill(self, name: str) -> None:
        """Kill a process and its descendants with SIGKILL; the supervisor restarts it after half a second."""
        self._running_supervisor.restarter(name).kill()

    def crash(self, name: str) -> None:
        """Kill a process and its descendants with SIGKILL; it is not restarted until `start`."""
        self._running_supervisor.restarter(name).crash()

    def freeze(self, name: str) -> None:
        """Suspend a process and its descendants (SIGSTOP); raises StackError while it is not running."""
        self._running_supervisor.restarter(name).freeze()

    def thaw(self, name: str) -> None:
        """Resume a frozen process (SIGCONT); raises StackError while it is not running."""
        self._running_supervisor.restarter(name).thaw()

    def wait_up(self, name: str, timeout_seconds: float = RESTART_TIMEOUT_SECONDS) -> None:
        """Wait until a killed process is healthy again; raises StackError after the timeout."""
        self._running_supervisor.restarter(name).wait_up(timeout_seconds)

    def pid(self, name: str) -> int:
        """Return a process's id, which is also its group id; raises StackError while it is not running."""
        return self._running_supervisor.restarter(name).pid

    def add(self, spec: ProcessSpec) -> None:
        """Start one more process, which is stopped before all others; raises CannotStart."""
        self._running_supervisor.start([spec])

    def add_issuer(self, instance: str, overrides: Mapping[str, str] | None = None) -> str:
        """Start one more issuer as a process named `instance`, and return its URL; raises CannotStart."""
        port = ports.any_free()
        own = self._secured.environment("issuer", self._ports) if self._secured else {}
        variables = {**own, "ISSUER_INSTANCE": instance, "ISSUER_PORT": str(port), **(overrides or {})}
        self.add(app_processes.issuer({**self.environment, **variables}, instance))
        return f"http://{LOOPBACK}:{port}"

    @property
    def _is_secured(self) -> bool:
        value = self._user_env.get(settings.SECURED) or "off"
        if value not in ("on", "off"):
            raise StackError(f"{settings.SECURED} must be on or off")
        return value == "on"

    @property
    def _running_supervisor(self) -> Supervisor:
        if self._supervisor is None:
            raise StackError("the stack is not running: call up() first")
        return self._supervisor

    def _check_brokers(self) -> None:
        brokers = sum(name in settings.KAFKA_NODES for name in self._names)
        if brokers > 1 and self._kafka_proxies:
            raise StackError("a Kafka proxy supports one broker: unset KAFKA_BROKERS")
        if self._is_secured and (brokers > 1 or self._kafka_proxies):
            raise StackError("a secured stack has one broker, without proxies: unset KAFKA_BROKERS")
        if brokers and (shortage := kafka.memory_shortage(brokers)):
            raise StackError(shortage)

    def _log_not_started(self, log: SupervisorLog) -> None:
        for name in SERVERS:
            if name in self._requested and settings.is_external(name, self._user_env):
                log.write(f"{name:<9} not started: {' and '.join(settings.ADDRESSES[name])} set by the user")
        if "flower" in self._requested and "flower" not in self._names:
            log.write("flower    not started: it cannot show tasks while Celery's broker is Kafka")
        if any(name in settings.KAFKA_NODES for name in self._names) and not jars.all_present():
            log.write("kafka     downloading its jars: about 40 MB, on the first start only")


def _require_running(values: Mapping[str, Value], kind: Sequence[str], running: Sequence[str]) -> dict[str, Value]:
    """Return values by process name; raises StackError for a name that is not of that kind or not running."""
    allowed = [name for name in kind if name in running]
    for name in values:
        if name not in allowed:
            raise StackError(f"this stack does not run {name}: choose from {', '.join(allowed)}")
    return dict(values)
