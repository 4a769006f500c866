"""Flower asks everybody for its credentials, displays only, and shows what the workers do in words."""

from collections.abc import Iterator
from socket import gethostname
from typing import Any

import httpx
import psutil
import pytest

from tests.system import System
from workers.queues import BeatEntry, Queue, Task

_WORKER = f"celery@{gethostname()}"
_PAGES = ("/", "/workers", "/tasks", "/broker", "/api/workers", "/api/tasks", "/metrics")
_ORDERS = (
    f"/api/worker/shutdown/{_WORKER}",
    "/api/task/send-task/maintenance.sweep",
    "/api/task/async-apply/retry.issue",
)


@pytest.fixture
def flower(system: System) -> Iterator[httpx.Client]:
    """A client with credentials."""
    with httpx.Client(base_url=system.stack.flower_url, auth=system.stack.flower_login) as client:
        yield client


@pytest.mark.parametrize("page", _PAGES)
def test_a_page_needs_credentials(system: System, flower: httpx.Client, page: str) -> None:
    user, password = system.stack.flower_login
    for auth in (None, (user, "another"), ("another", password)):
        assert httpx.get(system.stack.flower_url + page, auth=auth).status_code == 401
    assert flower.get(page).status_code == 200


@pytest.mark.parametrize("order", _ORDERS)
def test_an_order_needs_credentials_and_is_refused_with_them(system: System, flower: httpx.Client, order: str) -> None:
    """The shutdown of a worker by a page that the operator visits, for example."""
    worker = psutil.Process(system.stack.pid("worker"))
    stranger = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}

    unknown = httpx.post(system.stack.flower_url + order)
    cross_site = flower.post(order, headers=stranger)
    known = flower.post(order, json={"args": []})

    assert (unknown.status_code, cross_site.status_code, known.status_code) == (401, 403, 403)
    assert "Read only mode is enabled" in known.text
    assert worker.is_running()


def test_no_other_site_may_read_flower(system: System, flower: httpx.Client) -> None:
    origin = {"Origin": "https://evil.example"}
    answers = [
        httpx.get(f"{system.stack.flower_url}/api/workers", headers=origin),
        httpx.options(f"{system.stack.flower_url}/api/workers", headers=origin),
        flower.get("/api/workers", headers=origin),
    ]

    assert [answer.headers.get("Access-Control-Allow-Origin") for answer in answers] == [None] * 3


def _rows(flower: httpx.Client, search: str) -> list[dict[str, Any]]:
    """Return the rows that the page of tasks shows for a search, the latest first."""
    columns: dict[str, str | int] = {
        "draw": 1,
        "start": 0,
        "length": 1000,
        "order[0][column]": 0,
        "order[0][dir]": "desc",
    }
    columns |= {"columns[0][data]": "received", "search[value]": search}
    page = flower.get("/tasks/datatable", params=columns)
    assert page.status_code == 200, page.text
    return list(page.json()["data"])


def _retry(system: System, flower: httpx.Client) -> tuple[int, dict[str, Any]]:
    """Have a request fail once; return its coupon and the row of its retry, once that has succeeded."""
    coupon = system.make_coupon(quantity=1)
    assert system.request_issuance(coupon, 1, fault="22012 1")

    def succeeded() -> dict[str, Any] | None:
        rows = [row for row in _rows(flower, f"name:{Task.RETRY}") if f" of coupon {coupon}," in row["args"]]
        return rows[0] if rows and rows[0]["state"] == "SUCCESS" else None

    return coupon, system.eventually(succeeded)


def test_a_task_is_shown_in_words_and_the_sweep_is_not_shown(system: System, flower: httpx.Client) -> None:
    """The sweep runs every second: it would hide all others."""
    coupon, row = _retry(system, flower)

    assert row["args"].startswith(f"1 request of coupon {coupon}, attempt 2 of 3 (partition ")
    assert row["kwargs"] == "after DivisionByZero: an injected fault"
    assert row["result"] == "none failed again"
    # Flower knows the name of a task only if it has seen its receipt, which is not so of one that is older than Flower
    shown = {task["name"] for task in flower.get("/api/tasks").json().values() if task["received"]}
    assert Task.RETRY in shown
    assert shown <= set(Task) - {beat.task for beat in BeatEntry}


def test_a_restart_of_flower_forgets_nothing(system: System, flower: httpx.Client) -> None:
    _, row = _retry(system, flower)

    system.stack.restart("flower")

    assert row["uuid"] in {kept["uuid"] for kept in _rows(flower, f"name:{Task.RETRY}")}
    system.eventually(lambda: _is_online(flower))


def test_a_worker_that_is_gone_and_the_messages_that_wait_for_it_are_shown(
    system: System, flower: httpx.Client
) -> None:
    coupon = system.make_coupon(quantity=2)
    system.stack.crash("worker")
    try:
        system.eventually(lambda: not _is_online(flower))
        assert system.request_issuance(coupon, 1, fault="22012 1")
        assert system.request_issuance(coupon, 2)
        system.eventually(lambda: {Queue.RETRY, Queue.NOTIFY} <= _waiting(flower))
    finally:
        system.stack.start("worker")

    system.eventually(lambda: _is_online(flower))
    system.eventually(lambda: not _waiting(flower))


def _is_online(flower: httpx.Client) -> bool:
    """Return how the page of workers shows this machine's worker."""
    workers = flower.get("/workers", params={"json": "true"}).json()["data"]
    return {worker["hostname"]: bool(worker["status"]) for worker in workers}[_WORKER]


def _waiting(flower: httpx.Client) -> set[str]:
    """Return the queues that have messages."""
    queues = flower.get("/api/queues/length").json()["active_queues"]
    return {queue["name"] for queue in queues if queue["messages"]}
