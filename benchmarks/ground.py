"""Fresh ground for an experiment: empty parts with tables and topics, and the means to start processes on them."""

import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psycopg
from sqlalchemy import Engine, text

from service.domain.request_id import RequestIds
from service.store import coupons, engine
from stack import logs, ports
from stack.health import answers_200
from stack.local import LocalStack
from stack.part import Part
from stack.parts import processes
from stack.parts.surroundings import LOOPBACK, ROOT
from stack.plan import PARTS
from stack.settings import OWN

KEY = "benchmark-" * 3
IDS = RequestIds([KEY.encode()])
#: where notices would go: hand-offs are written, and where no worker runs they stay
WEBHOOK = {"WEBHOOK_URL": "http://127.0.0.1:9/", "WEBHOOK_SECRET": f"whsec_{'A' * 43}="}
_NOTHING: Mapping[str, str] = {}
#: emptied one statement each: whoever waits for one of them waits for nothing that we hold
_DECISIONS = ("requests", "retries", "outbox", "dead_letters, dead_letter_actions")


class Ground:
    """A running stack and its database; processes are added to it and end with it."""

    def __init__(self, stack: LocalStack, store: Engine, *, sampled: bool) -> None:
        self.stack = stack
        self.store = store
        self._sampled = sampled

    def api(self, name: str = "api", module: str = "service.api") -> int:
        """Starts an API process; its port."""
        return self.serve(name, module, port_variable="API_PORT")

    def issuer(self, name: str = "issuer-0", **variables: str) -> int:
        """Starts an issuer; the port of its readiness."""
        return self.serve(name, "workers.issuer", port_variable="ISSUER_PORT", ISSUER_INSTANCE=name, **variables)

    def serve(self, name: str, *arguments: str, port_variable: str, **variables: str) -> int:
        """Starts a module as a process that is ready once its /readyz says so; its port."""
        port = ports.any_free()
        healthy = partial(answers_200, LOOPBACK, port, "/readyz")
        self._start(name, arguments, healthy, {port_variable: str(port), **variables})
        return port

    def run(self, name: str, *arguments: str, ready: str, **variables: str) -> None:
        """Starts a module as a process that is ready once it has said `ready`."""
        log = self.stack.directory / "log" / f"{name}.log"
        self._start(name, arguments, lambda: ready in logs.since_start(log), variables)

    def worker(self, **variables: str) -> None:
        """Starts Celery's worker and beat."""
        environment = {**self.stack.environment, **variables}
        self.stack.add(processes.worker(environment, self.stack.directory / "log" / "worker.log"))
        self.stack.add(processes.beat(environment))

    def _start(
        self, name: str, arguments: tuple[str, ...], healthy: Callable[[], bool], variables: Mapping[str, str]
    ) -> None:
        environment = {**self.stack.environment, **variables}
        sampler = ("benchmarks.sampled",) if self._sampled else ()
        argv = (sys.executable, "-m", *sampler, *arguments)
        self.stack.add(Part(name, argv, environment, ROOT, healthy, stop_timeout_seconds=20.0))

    def coupon(self, quantity: int) -> int:
        """A new coupon's id."""
        with self.store.begin() as tx:
            return coupons.create(tx, "a benchmark", quantity, 0, None, None).id

    def clear(self) -> None:
        """Takes every decision away and lets the database write down what it has: a round begins like the first.

        The offsets stay: the log goes on where it was.
        """
        with psycopg.connect(self.stack.database_url, autocommit=True) as connection:
            for tables in _DECISIONS:
                connection.execute(f"TRUNCATE {tables}".encode())
            connection.execute("CHECKPOINT")

    def issued(self, coupon_id: int) -> int:
        """How many of a coupon are issued, by its counter."""
        with self.store.begin() as tx:
            found = coupons.get(tx, coupon_id)
        return found.issued if found else 0

    def count(self, query: str, **values: object) -> int:
        """The number that a query gives."""
        with self.store.begin() as tx:
            return int(tx.execute(text(query), values).scalar_one())


def await_that(condition: Callable[[], bool], what: str, within_seconds: float = 120.0) -> None:
    """Waits for a condition; raises AssertionError when it does not come true in time."""
    deadline = time.monotonic() + within_seconds
    while not condition():
        assert time.monotonic() < deadline, f"after {within_seconds:.0f} s still not so: {what}"
        time.sleep(0.1)


@contextmanager
def prepared(directory: Path, variables: Mapping[str, str] = _NOTHING, *, sampled: bool = False) -> Iterator[Ground]:
    """Empty parts; PostgreSQL also notes the moment of every commit, by which waits are measured.

    `sampled`: the Python processes run under `benchmarks.sampled`, so that py-spy may look at them.
    """
    shutil.rmtree(directory, ignore_errors=True)
    given = {**OWN, "REQUEST_ID_KEYS": KEY, "LOG_LEVEL": "warning", **variables}
    with LocalStack(directory, (*PARTS, "migrate"), given) as stack:
        with psycopg.connect(stack.database_url, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET track_commit_timestamp = on")
        stack.restart("postgres")
        store = engine.build(stack.database_url, "benchmark")
        yield Ground(stack, store, sampled=sampled)
        store.dispose()
