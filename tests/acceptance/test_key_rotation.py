"""REQUEST_ID_KEYS is rotated while coupons are sold, on real processes: in the documented order, and in a wrong one."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from threading import Event

import httpx
import pytest
from pydantic import SecretStr

from service import resources
from service.clock import now_ms
from service.domain.request_id import RequestIds, fingerprint
from service.stream import clients
from service.stream.codec import REQUEST_ID_HEADER, encode_key, encode_value
from service.stream.topics import Topic
from service.usecases.alerts import Alert
from stack import app_processes, ports
from tests.fixtures.running import running
from tests.system import System, client_answer

_FIRST_KEY = "the key until today"
_LATE_USER = 10**9
_COUPONS = 12  # enough that every partition has some of them


class Rotation:
    """A running system whose processes can be restarted with other keys."""

    def __init__(self, system: System) -> None:
        self.system = system
        #: REQUEST_ID_KEYS of the processes, as the last restart left them
        self.keys = _FIRST_KEY
        self._names = {"api": "api", "issuer": "issuer", "worker": "worker"}
        self._numbers = count(1)

    def restart(self, process: str, keys: str) -> None:
        """Stop a process and start it with these keys, as an orchestrator does with a changed environment."""
        stack = self.system.stack
        stack.stop(self._names[process])
        environment = self.environment(keys)
        name = f"{process}-{next(self._numbers)}"
        if process == "worker":
            part = app_processes.worker(environment, stack.directory / "log" / f"{name}.log")
        else:
            part = {"api": app_processes.api, "issuer": app_processes.issuer}[process](environment)
        stack.add(replace(part, name=name))
        self._names[process] = name
        self.keys = keys

    def environment(self, keys: str, **more: str) -> Mapping[str, str]:
        """Return the environment of a process with these keys."""
        return {**self.system.stack.environment, "REQUEST_ID_KEYS": keys, **more}


@pytest.fixture(scope="module")
def _running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rotation]:
    variables = {"REQUEST_ID_KEYS": _FIRST_KEY, "ISSUER_INSTANCE": ""}
    with running(tmp_path_factory.mktemp("rotation"), variables) as system:
        yield Rotation(system)


@pytest.fixture
def rotation(_running: Rotation) -> Iterator[Rotation]:
    """A running system; after each test every accepted request must be final, and P1 to P5 must hold."""
    system = _running.system
    system.wait_until_ready()
    yield _running
    system.wait_until_ready()
    system.wait_until_idle()
    system.settings = system.settings.model_copy(update={"request_id_keys": SecretStr(_running.keys)})
    system.assert_promises()


def test_the_wrong_order_is_loud_and_heals(rotation: Rotation) -> None:
    """P4, P5: without the new key nothing signed with it is decided, denied or lost, and each process says why."""
    system = rotation.system
    coupons = [system.make_coupon(quantity=10) for _ in range(_COUPONS)]
    old, new = rotation.keys, "the key that is promoted too early"
    new_api = f"http://127.0.0.1:{(port := ports.any_free())}"
    log = system.stack.directory / "log" / "new-api.log"

    with _started(rotation.environment(f"{new},{old}", API_PORT=str(port)), log):
        system.eventually(lambda: "no issuer has it" in log.read_text())
        system.stack.add_issuer("late", {"REQUEST_ID_KEYS": f"{old},{new}"})
        system.eventually(lambda: _is_ready(new_api))
        reason = system.eventually(lambda: _reasons(system.stack.issuer_url).get("request id keys"))
        first = [_accepted(system, new_api, coupon, user) for user, coupon in enumerate(coupons, 1)]
        system.eventually(lambda: {_state(new_api, request_id) for request_id in first} == {"issued"})
        alert = system.eventually(lambda: system.http.get("/readyz").json()["alerts"].get(Alert.KEY_MISSING))
        unknown_there = httpx.get(f"{system.stack.api_url}/issuances/{first[0]}")

        system.stack.stop("late")
        second = [_accepted(system, new_api, coupon, user) for user, coupon in enumerate(coupons, 101)]
        waiting = {_state(new_api, request_id) for request_id in second}
        rotation.restart("issuer", f"{old},{new}")
        rotation.restart("api", f"{old},{new}")
        system.eventually(lambda: {_state(new_api, request_id) for request_id in second} == {"issued"})

    assert all(fingerprint(new.encode()) in text for text in (reason, alert))
    assert unknown_there.status_code == 503
    assert waiting == {"queued"}
    assert {system.read_status(request_id)["state"] for request_id in first + second} == {"issued"}
    assert not system.http.get("/readyz").json()["alerts"].get(Alert.KEY_MISSING)
    assert system.count("SELECT count(*) FROM dead_letters") == 0


def test_a_rotation_while_selling_contradicts_no_answer(rotation: Rotation) -> None:
    """P4, P5: verify-only everywhere, then first everywhere: every 202 is kept, under the id that the user has.

    Then the old key ends. An id that is signed with it later belongs to a foreign record.
    """
    system = rotation.system
    coupons = [system.make_coupon(quantity=100_000) for _ in range(_COUPONS)]
    old, new = rotation.keys, "the key that is promoted in order"
    signs = "SELECT count(*) FROM request_id_keys WHERE fingerprint = :fingerprint AND signs_since IS NOT NULL"

    with _selling(system, coupons):
        for process in ("issuer", "worker", "api"):
            rotation.restart(process, f"{old},{new}")
        signs_early = system.count(signs, fingerprint=fingerprint(new.encode()))
        for process in ("api", "issuer"):  # the worker signs nothing
            rotation.restart(process, f"{new},{old}")
        ended = _end(rotation, old.split(",")[0])
        late = _append_late(system, coupons[0], ended)

    accepted = [one.request_id for one in system.history if one.coupon_id in coupons and one.outcome == "accepted"]
    some = [request_id for request_id in accepted[:: len(accepted) // 50 + 1] if request_id]
    assert {system.wait_until_final(request_id)["state"] for request_id in some} == {"issued"}
    assert {_is_signed_with(new, request_id) for request_id in some} == {True, False}
    assert (signs_early, system.count(signs, fingerprint=fingerprint(new.encode()))) == (0, 1)
    assert system.count("SELECT count(*) FROM dead_letters") == 0
    system.wait_until_idle()
    by_id = "SELECT count(*) FROM requests WHERE request_id = :request_id"
    of_late_user = "SELECT count(*) FROM requests WHERE user_id = :user AND state = 'issued'"
    assert (system.count(by_id, request_id=late), system.count(of_late_user, user=_LATE_USER)) == (0, 1)
    assert system.eventually(lambda: system.http.get("/readyz").json()["alerts"].get(Alert.KEY_ENDED))


def _end(rotation: Rotation, key: str) -> RequestIds:
    """Let a key end in a moment, and return it when every process has read that."""
    keys = SecretStr(rotation.keys)
    settings = rotation.system.settings.model_copy(update={"request_id_keys": keys})
    with resources.open_key_administration(settings) as administration:
        administration.end(fingerprint(key.encode()), in_seconds=8)
        rotation.system.eventually(
            lambda: {one.key.fingerprint: one.key.has_ended for one in administration.list_keys()}[
                fingerprint(key.encode())
            ]
        )
    return RequestIds([key.encode()])


def _append_late(system: System, coupon: int, ids: RequestIds) -> str:
    """Append a record as somebody does who has an old key; return its request id."""
    at_ms = now_ms()
    request_id = ids.mint(coupon, _LATE_USER, at_ms)
    producer = clients.build_producer(system.settings)
    producer.produce(
        Topic.ISSUE_COUPON,
        key=encode_key(coupon),
        value=encode_value(coupon, _LATE_USER, at_ms),
        headers=[(REQUEST_ID_HEADER, request_id.encode())],
    )
    assert producer.flush(10) == 0
    return request_id


@contextmanager
def _selling(system: System, coupons: list[int]) -> Iterator[None]:
    """Send requests of ever new users from four clients during the block, and repeat those without an answer."""
    ended, users = Event(), count(1)

    def sell() -> None:
        while not ended.is_set():
            user = next(users)
            system.request_until_answered(coupons[user % len(coupons)], user)

    with ThreadPoolExecutor(4) as pool:
        clients: list[Future[None]] = [pool.submit(sell) for _ in range(4)]
        try:
            yield
        finally:
            ended.set()
        for client in clients:
            client.result()


@contextmanager
def _started(environment: Mapping[str, str], log: Path) -> Iterator[None]:
    """Run one more API outside the stack's supervision, which would wait for its health."""
    with (
        log.open("w") as output,
        subprocess.Popen(
            [sys.executable, "-m", "service.api"], env=environment, stdout=output, stderr=output
        ) as process,
    ):
        try:
            yield
        finally:
            process.terminate()


def _is_signed_with(key: str, request_id: str) -> bool:
    return RequestIds([key.encode()]).decode(request_id) is not None


def _accepted(system: System, url: str, coupon: int, user: int) -> str:
    response = httpx.post(f"{url}/coupons/{coupon}/issuances", json={"user_id": user}, timeout=10)
    system.history.append(client_answer(user, coupon, response))
    assert response.status_code == 202, response.text
    return str(response.json()["request_id"])


def _state(url: str, request_id: str) -> str:
    response = httpx.get(f"{url}/issuances/{request_id}")
    assert response.status_code == 200, response.text
    return str(response.json()["state"])


def _is_ready(url: str) -> bool:
    with suppress(httpx.HTTPError):
        return httpx.get(f"{url}/readyz").status_code == 200
    return False


def _reasons(url: str) -> dict[str, str]:
    """Return why a process is not ready."""
    return dict(httpx.get(f"{url}/readyz").json()["faults"])
