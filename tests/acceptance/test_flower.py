"""Flower asks everybody for its credentials, and displays only: nobody starts a task or stops a worker with it."""

from collections.abc import Iterator
from socket import gethostname

import httpx
import psutil
import pytest

from tests.system import System

_PAGES = ("/", "/workers", "/tasks", "/broker", "/api/workers", "/api/tasks", "/metrics")
_ORDERS = (
    f"/api/worker/shutdown/celery@{gethostname()}",
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
