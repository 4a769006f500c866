"""The environment of an experiment: an empty local stack with schema and topics, and processes started on it."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import psutil
import psycopg
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]
from psycopg.errors import UndefinedTable
from sqlalchemy import Connection, Engine, text

from benchmarks.checkout import WORK_TREE, Checkout
from service.config import Settings
from service.domain.request_id import RequestIds
from service.store import coupons, engine
from stack import app_processes, logs, ports
from stack.local import LocalStack
from stack.process_spec import ProcessSpec, http_ok
from stack.server_env import LOOPBACK
from stack.servers.postgres import APPLICATION
from stack.settings import ISOLATED
from stack.startup import SERVERS

KEY = "benchmark-" * 3
IDS = RequestIds([KEY.encode()])
PARTITIONS: int = Settings.model_fields["topic_partitions"].default
#: with a webhook the issuer writes outbox rows of notices; where no worker runs, the rows stay
WEBHOOK = {"WEBHOOK_URL": "http://127.0.0.1:9/", "WEBHOOK_SECRET": f"whsec_{'A' * 43}="}
_NO_VARIABLES: Mapping[str, str] = {}
#: one TRUNCATE statement each, so that a session that waits for one table's lock does not wait for another lock of ours
#: `handoffs` was the name of `outbox` in earlier commits
_DECISION_TABLES = ("requests", "retries", "outbox", "handoffs", "dead_letters, dead_letter_actions")
_TOPIC_TIMEOUT_SECONDS = 30
#: clock_gettime(2) of Linux: the CPU time of a whole process, user and system, in nanoseconds
_PROCESS_CPU_CLOCK = 2


class CpuTime:
    """CPU seconds of each measured part, user and system; filled when the measured block ends."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def figures(self, requests: int) -> dict[str, float]:
        """Return CPU microseconds per request, by part and of all parts together."""
        return {f"{part}_cpu_us": seconds / requests * 1e6 for part, seconds in self._with_sum().items()}

    def cores(self, wall_seconds: float) -> dict[str, float]:
        """Return the share of a core that each part used, and the sum."""
        return {f"{part}_cores": seconds / wall_seconds for part, seconds in self._with_sum().items()}

    def _with_sum(self) -> dict[str, float]:
        by_part = {part.replace("-", "_"): seconds for part, seconds in self.seconds.items()}
        return {**by_part, "all": sum(by_part.values())}


class Environment:
    """A running stack and its database. Processes that are started here end with the environment."""

    def __init__(self, stack: LocalStack, store: Engine, checkout: Checkout, *, under: str) -> None:
        self.stack = stack
        self.store = store
        self._checkout = checkout
        self._under = (under,) if under else ()

    def start_api(self, name: str = "api", **variables: str) -> int:
        """Start an API process and return its port."""
        return self._start_server(name, self._argv("api", "service.api"), "API_PORT", variables)

    def start_issuer(self, name: str = "issuer-0", **variables: str) -> int:
        """Start an issuer and return the port of its /readyz."""
        argv = self._argv("issuer", "workers.issuer")
        return self._start_server(name, argv, "ISSUER_PORT", {"ISSUER_INSTANCE": name, **variables})

    def start_worker(self, **variables: str) -> None:
        """Start Celery's worker and beat."""
        environ = {**self.stack.environment, **variables}
        self.stack.add(app_processes.worker(environ, self.stack.directory / "log" / "worker.log"))
        self.stack.add(app_processes.beat(environ))

    def start_server(self, name: str, *arguments: str, port_variable: str) -> int:
        """Start `python -m ARGUMENTS`, wait until its /readyz returns 200, and return its port."""
        return self._start_server(name, self._python(arguments), port_variable, {})

    def start_process(self, name: str, *arguments: str, ready_message: str) -> None:
        """Start `python -m ARGUMENTS` and wait until its log contains `ready_message`."""
        log = self.stack.directory / "log" / f"{name}.log"
        self._start(name, self._python(arguments), lambda: ready_message in logs.since_start(log), {})

    def _argv(self, process: str, module: str) -> tuple[str, ...]:
        """Return the command of one of the project's processes; to run it under another one takes its module."""
        return self._python((module,)) if self._under else self._checkout.argv(process)

    def _python(self, arguments: tuple[str, ...]) -> tuple[str, ...]:
        return (sys.executable, "-m", *self._under, *arguments)

    def _start_server(self, name: str, argv: tuple[str, ...], port_variable: str, variables: Mapping[str, str]) -> int:
        port = ports.any_free()
        ready = partial(http_ok, LOOPBACK, port, "/readyz")
        self._start(name, argv, ready, {port_variable: str(port), **variables})
        return port

    def _start(self, name: str, argv: tuple[str, ...], ready: Callable[[], bool], variables: Mapping[str, str]) -> None:
        environ = {**self.stack.environment, **self._checkout.variables, **variables}
        self.stack.add(ProcessSpec(name, argv, environ, self._checkout.root, ready, stop_timeout_seconds=20.0))

    @contextmanager
    def suspended(self, part: str) -> Iterator[None]:
        """Suspend a process while the block runs, for example a consumer while its topic is filled."""
        self.stack.freeze(part)
        try:
            yield
        finally:
            self.stack.thaw(part)

    def create_topic(self, topic: str, partitions: int = PARTITIONS) -> None:
        """Create a topic with the settings of ISSUE_COUPON."""
        admin = AdminClient({"bootstrap.servers": self.stack.kafka_bootstrap_servers, "log_level": 0})
        config = {"message.timestamp.type": "LogAppendTime"}
        admin.create_topics([NewTopic(topic, partitions, 1, config=config)])[topic].result(_TOPIC_TIMEOUT_SECONDS)

    def create_coupon(self, quantity: int) -> int:
        """Create a coupon and return its id."""
        with self.store.begin() as tx:
            return coupons.create(tx, "a benchmark", quantity, 0, None, None, "benchmarks").id

    def clear_decisions(self) -> None:
        """Delete every decision and run a CHECKPOINT, so that each round begins like the first one.

        The partitions' next offsets stay: the issuer continues where it was in the log.
        """
        with psycopg.connect(self.stack.admin_database_url, autocommit=True) as connection:
            for tables in _DECISION_TABLES:
                with suppress(UndefinedTable):  # a commit has one of the names of the outbox
                    connection.execute(f"TRUNCATE {tables}".encode())
            connection.execute("CHECKPOINT")

    def issued_count(self, coupon_id: int) -> int:
        """Return the coupon's counter of issuances."""
        return self.query_int("SELECT issued FROM coupons WHERE id = :coupon", coupon=coupon_id)

    def query_int(self, query: str, **values: object) -> int:
        """Return the single number that a query selects."""
        with self.store.begin() as tx:
            return int(tx.execute(text(query), values).scalar_one())

    @contextmanager
    def cpu_time(self, parts: Sequence[str]) -> Iterator[CpuTime]:
        """Measure the CPU time that each part and its child processes use while the block runs."""
        measured, before = CpuTime(), {part: cpu_seconds(self.stack.pid(part)) for part in parts}
        yield measured
        measured.seconds = {part: cpu_seconds(self.stack.pid(part)) - before[part] for part in parts}

    def resident_mb(self, part: str) -> float:
        """Return the resident memory of a part's main process in megabytes."""
        return float(psutil.Process(self.stack.pid(part)).memory_info().rss / 1_000_000)


def wait_until(condition: Callable[[], bool], description: str, timeout_seconds: float = 120.0) -> None:
    """Poll a condition until it holds; raise AssertionError after the timeout."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline, f"timed out after {timeout_seconds:.0f} s: {description}"
        time.sleep(0.1)


@contextmanager
def start_environment(
    directory: Path,
    variables: Mapping[str, str] = _NO_VARIABLES,
    checkout: Checkout = WORK_TREE,
    *,
    under: str = "",
) -> Iterator[Environment]:
    """Start an empty stack in an emptied directory. PostgreSQL records commit timestamps: waits end at them.

    `variables` are added to the environment variables of every process. Migration, API and issuer run from `checkout`.
    Python processes of this work tree run under the module `under`, if there is one, such as `benchmarks.profiler`.
    """
    shutil.rmtree(directory, ignore_errors=True)
    environ = {**ISOLATED, "REQUEST_ID_KEYS": KEY, "LOG_LEVEL": "warning", **variables}
    with LocalStack(directory, SERVERS, environ) as stack:
        _migrate(stack, checkout)
        with psycopg.connect(stack.admin_database_url, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET track_commit_timestamp = on")
        stack.restart("postgres")
        store = engine.build(stack.database_url, "benchmark")
        yield Environment(stack, store, checkout, under=under)
        store.dispose()


def _migrate(stack: LocalStack, checkout: Checkout) -> None:
    """Create tables and topics as the checkout's commit does. An older commit has one role, which it grants nothing."""
    environ = {**stack.environment, **checkout.variables, "DATABASE_URL": stack.environment["MIGRATE_DATABASE_URL"]}
    with (stack.directory / "log" / "migrate.log").open("wb") as log:
        argv = checkout.argv("migrate")
        subprocess.run(argv, cwd=checkout.root, env=environ, stdout=log, stderr=log, check=True)
    with psycopg.connect(stack.admin_database_url, autocommit=True) as connection:
        connection.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {APPLICATION}".encode())


def cpu_seconds(pid: int) -> float:
    """Return user and system seconds of a process and its descendants, ended ones included."""
    process, seconds = psutil.Process(pid), 0.0
    for each in (*process.children(recursive=True), process):  # the process last: it has the time of those that ended
        with suppress(psutil.NoSuchProcess, OSError):
            times = each.cpu_times()
            seconds += times.children_user + times.children_system + _own_cpu_seconds(each)
    return seconds


def _own_cpu_seconds(process: psutil.Process) -> float:
    """Return user and system seconds of a process alone; psutil's have a resolution of 10 ms, Linux has finer ones."""
    if sys.platform == "linux":
        return time.clock_gettime(~process.pid << 3 | _PROCESS_CPU_CLOCK)
    times = process.cpu_times()
    return float(times.user + times.system)


def create_closed_log(tx: Connection, name: str) -> int:
    """Return the id of a log for rows that no issuer decides; it is created at the first call."""
    tx.execute(
        text(
            "INSERT INTO logs (topic, topic_id, adopted_by, closed_at) VALUES (:name, :name, 'benchmarks', now())"
            " ON CONFLICT DO NOTHING"
        ),
        {"name": name},
    )
    return int(tx.execute(text("SELECT id FROM logs WHERE topic_id = :name"), {"name": name}).scalar_one())
