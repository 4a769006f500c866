"""The faults of test_alerts.py: how each begins, which alert says it, and the step of its runbook that mends it."""

import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from service.domain.caller import Role
from service.stream import topics
from service.stream.topics import Topic
from tests.faults import small_disk
from tests.faults.proxy import Proxy
from tests.system import System

_ROOT = Path(__file__).parents[2]
#: each way through the proxy; a read takes four round trips and is to take between 0.3 and 1 s
_DELAY_SECONDS = 0.06


class Environment(NamedTuple):
    """The running system, a proxy between PostgreSQL and the API and issuer, and PostgreSQL's disk if it is small."""

    system: System
    database: Proxy
    disk: Path | None


def run(environment: Environment, command: str) -> "subprocess.CompletedProcess[str]":
    """Run a command of a runbook in a shell, with the addresses of the stack and `KEY`, which is empty without AUTH."""
    key = environment.system.credentials.key(Role.ADMIN) or ""
    variables = {"KEY": key, **environment.system.stack.environment}
    return subprocess.run(
        command, shell=True, cwd=_ROOT, env=variables, capture_output=True, text=True, timeout=60, check=False
    )


def coupons(environment: Environment, arguments: str) -> None:
    """Run `coupons` with these arguments; it must succeed."""
    done = run(environment, f"{sys.executable} -m service.cli {arguments}")
    assert done.returncode == 0, done.stdout + done.stderr


Action = Callable[[Environment], object]
Injection = Callable[[Environment], AbstractContextManager[None]]


class Step(NamedTuple):
    """A step of the section "What to do" of a runbook, quoted, and how it is done here."""

    quoted: str
    do: Action


class ConfirmCommand(NamedTuple):
    """A command of the section "How to confirm" of a runbook, and what it shows: its exit status and a part of it."""

    command: str
    status: int
    output: str = ""


class Fault(NamedTuple):
    """A fault of the running system."""

    what: str
    inject: Injection
    alert: str
    #: of the cause: the part's own words, or those that tell it from others
    words: str
    mend: Step
    confirm: ConfirmCommand | None = None


def runbook(alert: str) -> dict[str, str]:
    """Return the sections of an alert's runbook by heading, in one line each."""
    text = (_ROOT / "docs" / "runbooks" / f"{alert}.md").read_text()
    parts = re.split("^## (.*)$", text, flags=re.MULTILINE)[1:]
    return {heading: " ".join(body.split()) for heading, body in zip(parts[::2], parts[1::2], strict=True)}


def _injected(action: Action) -> Injection:
    """Return the injection that only does something at its beginning."""

    @contextmanager
    def inject(environment: Environment) -> Iterator[None]:
        action(environment)
        yield

    return inject


def _stop(environment: Environment, part: str) -> None:
    environment.system.stack.stop(part)


def _start(environment: Environment, part: str) -> None:
    environment.system.stack.start(part)


def _stopped(part: str) -> Injection:
    """Return the injection that shuts a part down in order."""
    return _injected(partial(_stop, part=part))


def _crashed(part: str) -> Injection:
    """Return the injection that kills a part, which nobody starts again."""
    return _injected(lambda environment: environment.system.stack.crash(part))


def _starting(part: str) -> Action:
    return partial(_start, part=part)


@contextmanager
def _database_away(environment: Environment) -> Iterator[None]:
    """Shut PostgreSQL down; the proxy refuses connections as the server would."""
    _stop(environment, "postgres")
    with environment.database.refusing():
        yield


@contextmanager
def _receiver_failing(environment: Environment) -> Iterator[None]:
    """Let the receiver answer 500 to the notices of a sale."""
    system = environment.system
    system.receiver.response_status = 500
    for coupon in (system.make_coupon(quantity=3) for _ in range(2)):
        system.request_many_until_answered(coupon, range(1, 4))
    yield


def _mend_receiver(environment: Environment) -> None:
    environment.system.receiver.response_status = 204


@contextmanager
def _database_slow(environment: Environment) -> Iterator[None]:
    """Delay what PostgreSQL answers, and what it is asked, on the way; the route is mended at the end of the block."""
    with environment.database.delaying(_DELAY_SECONDS):
        yield


@contextmanager
def _disk_full(environment: Environment) -> Iterator[None]:
    """Fill PostgreSQL's disk, and let users request coupons meanwhile."""
    if environment.disk is None:
        pytest.skip("no small file system can be mounted here")
    stopping = threading.Event()
    coupon = environment.system.make_coupon(quantity=1_000_000)

    def request_coupons() -> None:
        user = 0
        while not stopping.wait(0.02):
            environment.system.request_issuance(coupon, user := user + 1)

    load = threading.Thread(target=request_coupons)
    load.start()
    try:
        small_disk.fill(environment.disk)
        yield
    finally:
        stopping.set()
        load.join()


def _make_room(environment: Environment) -> None:
    if environment.disk:
        small_disk.make_room(environment.disk)
        environment.system.stack.wait_up("postgres")


def _kill_issuer(environment: Environment) -> None:
    """Kill it; its supervisor starts it, as an orchestrator does."""
    stack = environment.system.stack
    assert run(environment, f"kill -KILL {stack.pid('issuer')}").returncode == 0
    stack.wait_up("issuer")


def _delete_topic(environment: Environment) -> None:
    admin = topics.build_admin(environment.system.settings)
    admin.delete_topics([Topic.ISSUE_COUPON.value])[Topic.ISSUE_COUPON.value].result(10)
    environment.system.eventually(lambda: topics.find(admin, Topic.ISSUE_COUPON) is None)


def _adopt_new_topic(environment: Environment) -> None:
    coupons(environment, "migrate")
    coupons(environment, "log adopt")


def _set_max_memory(environment: Environment, size: int) -> None:
    """Valkey is the gate and Celery's broker."""
    environment.system.redis.config_set("maxmemory", size)


_ISSUER_PORT = ConfirmCommand("curl -i $ISSUER_URL/healthz", 7)
_READINESS = 'curl -s $API_URL/readyz -H "Authorization: Bearer $KEY"'

#: what must go on after an outage of PostgreSQL or Redis has half a minute for that: so these outages are last
FAULTS = [
    Fault(
        "the issuer was stopped",
        _stopped("issuer"),
        "CouponsIssuerDown",
        "No issuer has run for ",
        Step("Start it. It goes on at the offset in the database", _starting("issuer")),
        _ISSUER_PORT,
    ),
    Fault(
        "the issuer was killed",
        _crashed("issuer"),
        "CouponsIssuerDown",
        "No issuer has run for ",
        Step("Start it. It goes on at the offset in the database", _starting("issuer")),
        _ISSUER_PORT,
    ),
    Fault(
        "the issuer is frozen",
        _injected(lambda environment: environment.system.stack.freeze("issuer")),
        "CouponsIssuerFrozen",
        "its process is connected to PostgreSQL",
        Step("Kill it with SIGKILL (`kill -KILL PID`) and start it.", _kill_issuer),
        ConfirmCommand("curl -m 3 $ISSUER_URL/healthz", 28),
    ),
    Fault(
        "the worker was stopped",
        _stopped("worker"),
        "CouponsWorkerDown",
        "messages wait in the queue maintenance",
        Step("Start the worker.", _starting("worker")),
        ConfirmCommand("celery -A workers inspect ping", 69, "No nodes replied"),
    ),
    Fault(
        "beat was stopped",
        _stopped("beat"),
        "CouponsBeatDown",
        "Celery beat has sent nothing for ",
        Step("Start beat, exactly one.", _starting("beat")),
    ),
    Fault(
        "the receiver fails",
        _receiver_failing,
        "CouponsWebhookFailing",
        "the last one: it answered 500 Internal Server Error",
        Step("The receiver's owner mends it.", _mend_receiver),
    ),
    Fault(
        "the database is slow",
        _database_slow,
        "CouponsDatabaseSlow",
        "the last reads took 0.",
        Step("the network or a pooler between them is the limit: mend the route", lambda _: None),
    ),
    Fault(
        "the database's disk is full",
        _disk_full,
        "CouponsWritesRefused",
        "No space left on device",
        Step("*PostgreSQL, disk full*: make room outside the data directory", _make_room),
    ),
    Fault(
        "the database is away",
        _database_away,
        "CouponsDatabaseDown",
        "onnection refused",
        Step(
            "*Connection refused*: the server is not running. Read its log before you start it", _starting("postgres")
        ),
        ConfirmCommand(_READINESS, 0, '"degraded":["postgresql"]'),
    ),
    Fault(
        "Kafka is away",
        _stopped("kafka"),
        "CouponsKafkaDown",
        "Kafka has not answered",
        Step("*No broker answers*: read the log of the brokers and start them.", _starting("kafka")),
    ),
    Fault(
        "the topic was deleted",
        _injected(_delete_topic),
        "CouponsTopicReplaced",
        "topic ISSUE_COUPON does not exist",
        Step("*It does not exist*: `coupons migrate` creates it", _adopt_new_topic),
    ),
    Fault(
        "the memory of Redis is full",
        _injected(partial(_set_max_memory, size=1)),
        "CouponsWritesRefused",
        "used memory > 'maxmemory'",
        Step("*Redis, memory full*: raise `maxmemory` (`CONFIG SET maxmemory", partial(_set_max_memory, size=0)),
    ),
    Fault(
        "Redis is away",
        _stopped("valkey"),
        "CouponsRedisDown",
        "onnection refused",
        Step("Start the server, or fail over. It may be empty", _starting("valkey")),
    ),
]
