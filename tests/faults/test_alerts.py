"""Faults of the running system: each is said by exactly one alert within 15 s, and by none once it is mended."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple, Self

import pytest

from stack import ports
from stack.credentials import Credentials
from stack.servers import postgres
from tests.faults.proxy import Proxy
from tests.faults.receiver_faults import error
from tests.faults.small_disk import disk_full, small_file_system
from tests.fixtures.running import running
from tests.system import System
from tests.waiting import eventually

pytestmark = pytest.mark.all_rows

#: promised: a fault is said within this time
SAID_SECONDS = 15.0
#: the longest recovery is that of Kafka, which starts again
_MENDED_SECONDS = 30.0
_MEGABYTES = 192
#: each way through the proxy; a read takes four round trips and is to take between 0.3 and 1 s
_DELAY_SECONDS = 0.06
_WATCH_SECONDS = 0.3


class Alert(NamedTuple):
    """An active alert."""

    name: str
    cause: str


class AlertWatch:
    """Reads the alerts all the time, and keeps every one that was ever active."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="alert watch")
        #: the causes of each alert that was active
        self.seen: dict[str, str] = {}
        #: those that are active now
        self.active: list[Alert] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(_WATCH_SECONDS):
            answer = self._system.http.get("/alerts").raise_for_status().json()
            assert answer["observed_at"], "the first alert is read after the first observation"
            found = answer["alerts"]
            self.active = [Alert(alert["name"], alert["cause"]) for alert in found]
            self.seen |= {alert.name: alert.cause for alert in self.active}

    def wait_for(self, name: str) -> str:
        """Wait until the alert is active, alone; return its cause. Fail after SAID_SECONDS."""
        eventually(lambda: [alert.name for alert in self.active] == [name], within_seconds=SAID_SECONDS)
        return self.seen[name]

    def wait_until_well(self) -> None:
        """Wait until no alert is active."""
        eventually(lambda: not self.active, within_seconds=_MENDED_SECONDS)


class Environment(NamedTuple):
    """The running system, a proxy between PostgreSQL and the API and issuer, and PostgreSQL's disk if it is small."""

    system: System
    database: Proxy
    disk: Path | None


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    """The system on a stack of its own. Without the right to mount a file system only the full disk is left out."""
    directory = tmp_path_factory.mktemp("alerts")
    credentials = Credentials.load_or_create(directory / "secrets")
    port = ports.any_free()
    with ExitStack() as opened:
        disk = _small_disk(opened, tmp_path_factory.mktemp("disk"))
        database = opened.enter_context(Proxy(ports.any_free(), port))
        url = {"DATABASE_URL": postgres.application_url(database.port, credentials)}
        system = opened.enter_context(
            running(
                directory,
                overrides={"api": url, "issuer": url},
                directories={"postgres": disk / "postgres"} if disk else None,
                preferred_ports={"postgres": port},
            )
        )
        yield Environment(system, database, disk)


def _small_disk(opened: ExitStack, folder: Path) -> Path | None:
    try:
        opened.enter_context(small_file_system(folder, _MEGABYTES))
    except pytest.skip.Exception:
        return None
    return folder


@contextmanager
def stopped(environment: Environment, part: str) -> Iterator[None]:
    """Shut a part down in order, and start it again."""
    environment.system.stack.stop(part)
    try:
        yield
    finally:
        environment.system.stack.start(part)


@contextmanager
def database_away(environment: Environment, part: str) -> Iterator[None]:
    """Shut PostgreSQL down; the proxy refuses connections as the server would."""
    with stopped(environment, part), environment.database.refusing():
        yield


@contextmanager
def killed(environment: Environment, part: str) -> Iterator[None]:
    """Kill a part, and start it again."""
    environment.system.stack.crash(part)
    try:
        yield
    finally:
        environment.system.stack.start(part)


@contextmanager
def frozen(environment: Environment, part: str) -> Iterator[None]:
    """Suspend a part; its runbook says to kill it, and its supervisor starts it."""
    environment.system.stack.freeze(part)
    try:
        yield
    finally:
        environment.system.stack.kill(part)
        environment.system.stack.wait_up(part)


@contextmanager
def receiver_failing(environment: Environment, _: str) -> Iterator[None]:
    """Let the receiver answer 500 to the notices of a sale."""
    system = environment.system
    system.receiver.misbehave = error
    for coupon in (system.make_coupon(quantity=3) for _ in range(2)):
        system.request_many_until_answered(coupon, range(1, 4))
    try:
        yield
    finally:
        system.receiver.misbehave = None


@contextmanager
def slow(environment: Environment, _: str) -> Iterator[None]:
    """Delay what PostgreSQL answers, and what it is asked."""
    with environment.database.delaying(_DELAY_SECONDS):
        yield


@contextmanager
def full(environment: Environment, _: str) -> Iterator[None]:
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
        with disk_full(environment.disk):
            yield
    finally:
        stopping.set()
        load.join()
    environment.system.stack.wait_up("postgres")


@contextmanager
def memory_full(environment: Environment, _: str) -> Iterator[None]:
    """Let Valkey refuse every write; it is the gate and Celery's broker."""
    redis = environment.system.redis
    redis.config_set("maxmemory", 1)
    try:
        yield
    finally:
        redis.config_set("maxmemory", 0)


Injection = Callable[[Environment, str], AbstractContextManager[None]]


class Fault(NamedTuple):
    """A fault, its alert, and what the cause says."""

    what: str
    inject: Injection
    part: str
    alert: str
    #: the part's own words, or those that tell it from others
    words: str


#: what must go on after an outage of PostgreSQL or Redis has half a minute for that: so these outages are last
FAULTS = [
    Fault("the issuer was stopped", stopped, "issuer", "CouponsIssuerDown", "No issuer has run for "),
    Fault("the issuer was killed", killed, "issuer", "CouponsIssuerDown", "No issuer has run for "),
    Fault("the issuer is frozen", frozen, "issuer", "CouponsIssuerFrozen", "its process is connected to PostgreSQL"),
    Fault("the worker was stopped", stopped, "worker", "CouponsWorkerDown", "messages wait in the queue maintenance"),
    Fault("beat was stopped", stopped, "beat", "CouponsBeatDown", "Celery beat has sent nothing for "),
    Fault("the receiver fails", receiver_failing, "", "CouponsWebhookFailing", "it rejected "),
    Fault("the database is slow", slow, "postgres", "CouponsDatabaseSlow", "the last reads took 0."),
    Fault("the database's disk is full", full, "postgres", "CouponsWritesRefused", "No space left on device"),
    Fault("the database is away", database_away, "postgres", "CouponsDatabaseDown", "onnection refused"),
    Fault("Kafka is away", stopped, "kafka", "CouponsKafkaDown", "Kafka has not answered"),
    Fault("the memory of Redis is full", memory_full, "", "CouponsWritesRefused", "used memory > 'maxmemory'"),
    Fault("Redis is away", stopped, "valkey", "CouponsRedisDown", "onnection refused"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.what)
def test_a_fault_is_said_by_one_alert(environment: Environment, fault: Fault) -> None:
    """In words, within 15 s, and nothing else is said from before the fault until after it."""
    system = environment.system
    system.wait_until_ready()
    with AlertWatch(system) as watch:
        watch.wait_until_well()
        watch.seen.clear()
        began = time.monotonic()
        with fault.inject(environment, fault.part):
            cause = watch.wait_for(fault.alert)
            said_seconds = time.monotonic() - began
        watch.wait_until_well()

    assert watch.seen.keys() == {fault.alert}, watch.seen
    assert fault.words in cause
    assert said_seconds < SAID_SECONDS + 5, "the fault itself took its time"


def test_the_accepted_requests_are_final_afterwards(environment: Environment) -> None:
    """What the faults left is worked off, and the promises hold."""
    environment.system.wait_until_idle()
    environment.system.assert_promises()
