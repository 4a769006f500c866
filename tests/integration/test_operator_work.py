"""Heavy work of operators runs one at a time, ends with its caller, and delays neither users nor readiness."""

import asyncio
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from threading import Event

import httpx
import pytest
from sqlalchemy import Engine, text

from service import resources as service_resources
from service.api import app
from service.api.plain_requests import CouponProtocol
from service.cancellation import Cancellation
from service.config import Settings
from service.domain.coupon import Coupon
from service.domain.errors import Cancelled, TooBusy
from service.store import engine
from service.usecases.operator_work import BoundedStreams, BoundedThreads, ExclusiveWork
from service.verification.verify import Verifier
from tests.cancellations import CancelledAt
from tests.integration.conftest import Query
from tests.log import Log
from tests.server_thread import ServerThread
from tests.waiting import eventually

MakeCoupon = Callable[..., Coupon]
#: a call that did not wait for anything
_AT_ONCE_SECONDS = 2.0
#: lists that run or wait, and more than that
_RUN_OR_WAIT, _LISTS = 102, 110
_VERIFYING = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'api verification' AND state <> 'idle'"
_WAITING = f"{_VERIFYING} AND wait_event_type = 'Lock'"
_REPORTING = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'api reports' AND wait_event_type = 'Lock'"
_STATEMENTS = {"report": _REPORTING, "issuances": _REPORTING, "verification": _WAITING}


@pytest.fixture
def server(settings: Settings, real_log: Log, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServerThread]:
    """An API in this process, whose statements wait longer for a lock than any test."""
    del real_log  # emptied: a proof reads it
    monkeypatch.setitem(engine._REQUIRED, "lock_timeout", "60s")
    common = service_resources.open_resources(settings, "api", connections=10)
    server = ServerThread(app.create_app(common), CouponProtocol, timeout_graceful_shutdown=1)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def http(server: ServerThread) -> Iterator[httpx.Client]:
    """A client of the API."""
    host, port = server.address
    with httpx.Client(base_url=f"http://{host}:{port}", timeout=30, limits=httpx.Limits()) as client:
        eventually(lambda: client.get("/healthz").status_code == 200)
        yield client


@contextmanager
def locked(admin: Engine, table: str) -> Iterator[None]:
    """Let every statement that reads the table wait during the block; the service's role may not lock one."""
    with admin.begin() as tx:
        tx.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        tx.execute(text(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"))
        yield


def timed(call: Callable[[], httpx.Response]) -> tuple[int, bool]:
    """Return the status of a response, and whether it came at once."""
    began = time.monotonic()
    status = call().status_code
    return status, time.monotonic() - began < _AT_ONCE_SECONDS


def test_a_second_verification_is_refused_at_once_and_delays_nothing(
    http: httpx.Client, admin: Engine, make_coupon: MakeCoupon, query: Query
) -> None:
    """Fifty calls hold no thread that users need: readiness, reading and creating coupons answer as before."""
    coupon = f"/coupons/{make_coupon().id}"
    verification = f"{coupon}/verification"
    with ThreadPoolExecutor(51) as pool:
        with locked(admin, "retries"):
            first = pool.submit(http.get, verification)
            eventually(lambda: query(_WAITING))
            others = [pool.submit(timed, lambda: http.get(verification)) for _ in range(50)]
            lawful = [
                timed(lambda: http.get("/readyz")),
                timed(lambda: http.get("/coupons")),
                timed(lambda: http.get(coupon)),
                timed(lambda: http.post("/coupons", json={"name": "n", "quantity": 1})),
            ]
            refused = http.get(verification)
            assert {other.result() for other in others} == {(429, True)}
        assert first.result().json()["ok"] is True

    assert lawful == [(200, True), (200, True), (200, True), (201, True)]
    assert (refused.status_code, refused.json()["code"]) == (429, "too_busy")
    assert refused.headers["content-type"] == "application/problem+json"
    assert int(refused.headers["retry-after"]) > 0
    assert http.get(verification).status_code == 200


@contextmanager
def waiting_call(server: ServerThread, path: str, query: Query, statement: str) -> Iterator[None]:
    """Send a request, and keep the connection during the block, which begins when its statement waits for a lock."""
    with socket.create_connection(server.address) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        eventually(lambda: query(statement))
        yield


@pytest.mark.parametrize("work", ["report", "verification"])
def test_a_client_that_goes_ends_the_statement_of_its_work(
    server: ServerThread, http: httpx.Client, admin: Engine, make_coupon: MakeCoupon, query: Query, work: str
) -> None:
    """It may take a minute, and the next work of its kind would be refused for that time."""
    path, statement = f"/coupons/{make_coupon().id}/{work}", _STATEMENTS[work]
    with locked(admin, "requests"):
        with waiting_call(server, path, query, statement):
            pass
        eventually(lambda: not query(statement))

    assert eventually(lambda: http.get(path).status_code == 200)


@pytest.mark.usefixtures("http")
@pytest.mark.parametrize("work", _STATEMENTS)
def test_a_shutdown_ends_the_statements_that_read_all_rows_of_a_coupon(
    server: ServerThread, admin: Engine, make_coupon: MakeCoupon, query: Query, work: str
) -> None:
    """The lock is released only after the process has ended, and the client is still there."""
    path = f"/coupons/{make_coupon().id}/{work}"
    with locked(admin, "requests"), waiting_call(server, path, query, _STATEMENTS[work]):
        server.uvicorn.should_exit = True
        server.join(20)
        assert not server.is_alive()


@pytest.mark.parametrize("step", range(5))
def test_a_cancelled_verification_stops_at_its_next_step(
    step: int, verifier: Verifier, real_log: Log, make_coupon: MakeCoupon
) -> None:
    """Between two records, rows or queries; nothing is left that would refuse the next one."""
    coupon = make_coupon()
    for user in (1, 2, 3):
        real_log.append_request(coupon.id, user)
    real_log.issue()
    steps = CancelledAt(step)

    with pytest.raises(Cancelled):
        verifier.verify(coupon_id=coupon.id, cancellation=steps)

    assert steps.left < 0
    assert all(check.ok for check in verifier.verify(coupon_id=coupon.id))


def test_a_second_replay_of_many_dead_letters_is_refused_at_once(
    http: httpx.Client, admin: Engine, query: Query
) -> None:
    """It would hold threads and locks for as long as the first."""
    body = {"dry_run": True}
    with ThreadPoolExecutor(1) as pool, locked(admin, "dead_letters"):
        first = pool.submit(http.post, "/dead-letters/replay", json=body)
        eventually(lambda: query("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"))
        second = timed(lambda: http.post("/dead-letters/replay", json=body))

    assert second == (429, True)
    assert first.result().status_code == 200


def test_operators_that_wait_leave_threads_and_connections_to_users(
    http: httpx.Client, store: Engine, admin: Engine, make_coupon: MakeCoupon
) -> None:
    """Forty calls that hang in the database neither make PostgreSQL look absent nor delay who reads a coupon."""
    coupon = make_coupon()
    with ThreadPoolExecutor(40) as pool, ExitStack() as until_asked:
        until_asked.enter_context(locked(admin, "dead_letter_actions"))
        hanging = [pool.submit(http.get, "/dead-letters/1") for _ in range(40)]
        eventually(lambda: _locks(store) >= 3)
        readiness = http.get("/readyz")
        read = timed(lambda: http.get(f"/coupons/{coupon.id}"))
        until_asked.close()
        statuses = {call.result().status_code for call in hanging}

    assert readiness.json()["degraded"] == []
    assert read == (200, True)
    assert statuses <= {404, 503}


def test_lists_of_users_that_wait_leave_threads_to_operators(http: httpx.Client, admin: Engine) -> None:
    """A user with one ticket may read the list as often as the user likes; the others are refused."""
    with ThreadPoolExecutor(_LISTS) as pool, ExitStack() as until_asked:
        until_asked.enter_context(locked(admin, "coupons"))
        lists = [pool.submit(http.get, "/coupons") for _ in range(_LISTS)]
        refused = [call.result() for call in eventually(lambda: _done(lists, _LISTS - _RUN_OR_WAIT))]
        operators = timed(lambda: http.get("/dead-letters"))
        until_asked.close()
        statuses = Counter(call.result().status_code for call in lists)

    assert operators == (200, True)
    assert {(response.status_code, response.json()["code"]) for response in refused} == {(429, "too_busy")}
    assert statuses == {200: _RUN_OR_WAIT, 429: _LISTS - _RUN_OR_WAIT}


def _done(calls: Sequence[Future[httpx.Response]], how_many: int) -> list[Future[httpx.Response]] | None:
    done = [call for call in calls if call.done()]
    return done if len(done) == how_many else None


def _locks(store: Engine) -> int:
    with store.begin() as tx:
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = 'api'"
        return int(tx.execute(text(waiting)).scalar_one())


@pytest.mark.parametrize(
    "kind", [ExclusiveWork, partial(BoundedThreads, threads=1), partial(BoundedStreams, streams=1)]
)
def test_the_event_loop_goes_on_while_work_ends(kind: Callable[[str], ExclusiveWork | BoundedThreads]) -> None:
    """What is closed with it, as the requests that are being accepted, has deadlines of its own."""
    began, goes_on = Event(), Event()

    def work(_: object) -> bool:
        began.set()
        return goes_on.wait(20)

    async def close_during_work() -> bool:
        threads = kind("test")
        running = asyncio.ensure_future(threads.run(work, asyncio.Event().wait))
        await asyncio.to_thread(began.wait, 20)
        closing = asyncio.ensure_future(threads.close())
        asyncio.get_running_loop().call_later(0.05, goes_on.set)
        await closing
        return await running

    assert asyncio.run(close_during_work())


def test_exclusive_work_keeps_its_place_until_it_has_ended() -> None:
    """A caller that is cancelled does not let a second one begin beside work that still runs."""
    began, goes_on = Event(), Event()

    def work(cancellation: Cancellation) -> None:
        began.set()
        goes_on.wait(20)
        cancellation.check()

    async def call() -> None:
        exclusive = ExclusiveWork("test")
        first = asyncio.ensure_future(exclusive.run(work, asyncio.Event().wait))
        await asyncio.to_thread(began.wait, 20)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        with pytest.raises(TooBusy):
            await exclusive.run(work, asyncio.Event().wait)
        goes_on.set()
        await exclusive.close()

    asyncio.run(call())
