"""Every listener gets the final event of its request, whatever restarts meanwhile."""

import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import httpx

from tests.event_streams import Event, stream
from tests.fixtures.api_processes import TwoProcesses
from tests.system import System

_LISTENERS = 20
#: a process with open streams ends within this time: it takes a second, and the machine may be busy
_SHUTDOWN_SECONDS = 10.0


class Listener:
    """A client that follows a request as a browser does: it connects again until it has the final event."""

    def __init__(self, system: System, url: str, request_id: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=20, auth=system.credentials)
        self._request_id = request_id
        #: the events of each connection that was answered
        self.connections: list[list[Event]] = []

    def follow(self, until_seconds: float = 60.0) -> Event:
        """Return the final event."""
        deadline = time.monotonic() + until_seconds
        while time.monotonic() < deadline:
            if not self._connect():
                time.sleep(0.1)
            elif self.connections[-1][-1].name == "final":
                return self.connections[-1][-1]
        raise AssertionError(f"no final event: {self.connections}")

    def _connect(self) -> bool:
        """Take the events of one connection; return whether it was answered."""
        with ExitStack() as opened:
            try:
                events = opened.enter_context(stream(self._client, self._request_id))
            except (httpx.NetworkError, httpx.RemoteProtocolError):  # the process ends, or is starting again
                return False
            self.connections.append([])
            for event in events:
                self.connections[-1].append(event)
            return True

    def redirect(self, url: str) -> None:
        """Connect to another process from now on."""
        self._client.base_url = httpx.URL(url)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


@contextmanager
def listening(system: System, url: str, coupon: int) -> Iterator[tuple[list[Listener], list[Future[Event]]]]:
    """Request a coupon for many users, whom the issuer does not decide meanwhile, and follow every request."""
    system.stack.freeze("issuer")
    try:
        answers = system.request_many_until_answered(coupon, range(1, _LISTENERS + 1))
        listeners = [Listener(system, url, answer.json()["request_id"]) for answer in answers]
        with ThreadPoolExecutor(_LISTENERS) as pool:
            finals = [pool.submit(each.follow) for each in listeners]
            system.eventually(lambda: all(each.connections and len(each.connections[0]) > 1 for each in listeners))
            yield listeners, finals
    finally:
        system.stack.thaw("issuer")


def _assert_all_issued(finals: list[Future[Event]]) -> None:
    assert {future.result().data["state"] for future in finals} == {"issued"}


def test_a_rolling_restart_loses_no_final_event(system: System, two_processes: TwoProcesses) -> None:
    """Each process is replaced by another one; its streams end, and their clients go on at the others."""
    coupon = system.make_coupon(quantity=_LISTENERS)
    before = two_processes.serving()
    with listening(system, two_processes.url, coupon) as (listeners, finals):
        two_processes.parent.send_signal(signal.SIGHUP)
        system.eventually(lambda: two_processes.healthy() and not {*before} & {*two_processes.serving()})
        system.eventually(lambda: all(len(each.connections) > 1 for each in listeners))
        system.stack.thaw("issuer")
        _assert_all_issued(finals)
    for each in listeners:
        each.close()

    assert {connection[-1].name for each in listeners for connection in each.connections[:-1]} == {"retry"}


def test_open_streams_do_not_delay_a_shutdown(system: System, two_processes: TwoProcesses) -> None:
    """SIGTERM ends every stream cleanly, after a time to connect again, and then the processes."""
    coupon = system.make_coupon(quantity=_LISTENERS)
    with listening(system, two_processes.url, coupon) as (listeners, finals):
        began = time.monotonic()
        two_processes.parent.terminate()
        two_processes.parent.wait(_SHUTDOWN_SECONDS)
        seconds = time.monotonic() - began
        for each in listeners:  # they go on at the system's own process
            each.redirect(system.stack.api_url)
        system.stack.thaw("issuer")
        _assert_all_issued(finals)
    for each in listeners:
        each.close()

    assert {each.connections[0][-1].name for each in listeners} == {"retry"}
    assert seconds < _SHUTDOWN_SECONDS


def test_a_restart_of_the_database_loses_no_final_event(system: System) -> None:
    """The streams stay open; the events follow when it answers again."""
    coupon = system.make_coupon(quantity=_LISTENERS)
    with listening(system, system.stack.api_url, coupon) as (listeners, finals):
        system.stack.restart("postgres")
        system.stack.thaw("issuer")
        _assert_all_issued(finals)
    for each in listeners:
        each.close()

    assert {len(each.connections) for each in listeners} == {1}
