"""The environment of an experiment: an empty local stack with schema and topics, and processes started on it."""

import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psutil
import psycopg
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]
from sqlalchemy import Connection, Engine, text

from benchmarks import ROOT
from service.config import Settings
from service.domain.request_id import RequestIds
from service.store import coupons, engine
from stack import app_processes, logs, ports
from stack.local import LocalStack
from stack.process_spec import ProcessSpec, http_ok
from stack.server_env import LOOPBACK
from stack.settings import ISOLATED
from stack.startup import SERVERS

KEY = "benchmark-" * 3
IDS = RequestIds([KEY.encode()])
PARTITIONS: int = Settings.model_fields["topic_partitions"].default
#: with a webhook the issuer writes outbox rows of notices; where no worker runs, the rows stay
WEBHOOK = {"WEBHOOK_URL": "http://127.0.0.1:9/", "WEBHOOK_SECRET": f"whsec_{'A' * 43}="}
_NO_VARIABLES: Mapping[str, str] = {}
#: one TRUNCATE statement each, so that a session that waits for one table's lock does not wait for another lock of ours
_DECISION_TABLES = ("requests", "retries", "outbox", "dead_letters, dead_letter_actions")
_TOPIC_TIMEOUT_SECONDS = 30


class CpuTime:
    """CPU seconds of each measured part, user and system; filled when the measured block ends."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def figures(self, requests: int) -> dict[str, float]:
        """Return CPU microseconds per request, by part."""
        return {f"{part.replace('-', '_')}_cpu_us": seconds / requests * 1e6 for part, seconds in self.seconds.items()}


class Environment:
    """A running stack and its database. Processes that are started here end with the environment."""

    def __init__(self, stack: LocalStack, store: Engine, *, profiled: bool) -> None:
        self.stack = stack
        self.store = store
        self._profiled = profiled

    def start_api(self, name: str = "api", module: str = "service.api", **variables: str) -> int:
        """Start an API process and return its port."""
        return self.start_server(name, module, port_variable="API_PORT", **variables)

    def start_issuer(self, name: str = "issuer-0", **variables: str) -> int:
        """Start an issuer and return the port of its /readyz."""
        return self.start_server(name, "workers.issuer", port_variable="ISSUER_PORT", ISSUER_INSTANCE=name, **variables)

    def start_worker(self, **variables: str) -> None:
        """Start Celery's worker and beat."""
        environ = {**self.stack.environment, **variables}
        self.stack.add(app_processes.worker(environ, self.stack.directory / "log" / "worker.log"))
        self.stack.add(app_processes.beat(environ))

    def start_server(self, name: str, *arguments: str, port_variable: str, **variables: str) -> int:
        """Start `python -m ARGUMENTS`, wait until its /readyz returns 200, and return its port."""
        port = ports.any_free()
        ready = partial(http_ok, LOOPBACK, port, "/readyz")
        self._start(name, arguments, ready, {port_variable: str(port), **variables})
        return port

    def start_process(self, name: str, *arguments: str, ready_message: str) -> None:
        """Start `python -m ARGUMENTS` and wait until its log contains `ready_message`."""
        log = self.stack.directory / "log" / f"{name}.log"
        self._start(name, arguments, lambda: ready_message in logs.since_start(log), {})

    def _start(
        self, name: str, arguments: tuple[str, ...], ready: Callable[[], bool], variables: Mapping[str, str]
    ) -> None:
        environ = {**self.stack.environment, **variables}
        profiler = ("benchmarks.profiler",) if self._profiled else ()
        argv = (sys.executable, "-m", *profiler, *arguments)
        self.stack.add(ProcessSpec(name, argv, environ, ROOT, ready, stop_timeout_seconds=20.0))

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
            return coupons.create(tx, "a benchmark", quantity, 0, None, None).id

    def clear_decisions(self) -> None:
        """Delete every decision and run a CHECKPOINT, so that each round begins like the first one.

        The partitions' next offsets stay: the issuer continues where it was in the log.
        """
        with psycopg.connect(self.stack.database_url, autocommit=True) as connection:
            for tables in _DECISION_TABLES:
                connection.execute(f"TRUNCATE {tables}".encode())
            connection.execute("CHECKPOINT")

    def issued_count(self, coupon_id: int) -> int:
        """Return the coupon's counter of issuances."""
        with self.store.begin() as tx:
            coupon = coupons.get(tx, coupon_id)
        return coupon.issued if coupon else 0

    def query_int(self, query: str, **values: object) -> int:
        """Return the single number that a query selects."""
        with self.store.begin() as tx:
            return int(tx.execute(text(query), values).scalar_one())

    @contextmanager
    def cpu_time(self, parts: Sequence[str]) -> Iterator[CpuTime]:
        """Measure the CPU time that each part and its child processes use while the block runs."""
        measured, before = CpuTime(), {part: _cpu_seconds(self.stack.pid(part)) for part in parts}
        yield measured
        measured.seconds = {part: _cpu_seconds(self.stack.pid(part)) - before[part] for part in parts}

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
    directory: Path, variables: Mapping[str, str] = _NO_VARIABLES, *, profiled: bool = False
) -> Iterator[Environment]:
    """Start an empty stack in an emptied directory. PostgreSQL records commit timestamps: waits end at them.

    `variables` are added to the environment variables of every process. With `profiled`, Python processes run under
    `benchmarks.profiler`, so that py-spy may read their memory.
    """
    shutil.rmtree(directory, ignore_errors=True)
    environ = {**ISOLATED, "REQUEST_ID_KEYS": KEY, "LOG_LEVEL": "warning", **variables}
    with LocalStack(directory, (*SERVERS, "migrate"), environ) as stack:
        with psycopg.connect(stack.database_url, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET track_commit_timestamp = on")
        stack.restart("postgres")
        store = engine.build(stack.database_url, "benchmark")
        yield Environment(stack, store, profiled=profiled)
        store.dispose()


def _cpu_seconds(pid: int) -> float:
    """Return user and system seconds of a process and its descendants, ended ones included."""
    process = psutil.Process(pid)
    running = [process, *process.children(recursive=True)]
    times = [each.cpu_times() for each in running]
    ended = sum(each.children_user + each.children_system for each in times)
    return float(ended + sum(each.user + each.system for each in times))


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
