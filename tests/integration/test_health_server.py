"""The issuer's HTTP port: its answers, and what clients that never finish a request cost."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing

import httpx
import pytest
from prometheus_client import CONTENT_TYPE_LATEST

from service import resources
from service.config import Settings
from service.usecases.authenticate import Authenticator
from workers.issuer.health import Health
from workers.issuer.health_server import HealthServer

LOOPBACK = "127.0.0.1"


@pytest.fixture
def health() -> Health:
    """An issuer that is ready."""
    state = Health()
    state.set_ready("issuer")
    return state


@pytest.fixture
def authenticator(settings: Settings) -> Iterator[Authenticator]:
    """Authentication is off."""
    with resources.open_authenticator(settings, "tests") as opened:
        yield opened


@pytest.fixture
def server(health: Health, authenticator: Authenticator) -> Iterator[HealthServer]:
    """The server on a free port."""
    started = HealthServer(health, authenticator, dict, LOOPBACK, 0)
    started.start()
    yield started
    started.close()


@pytest.fixture
def client(server: HealthServer) -> Iterator[httpx.Client]:
    """A client of the server."""
    with httpx.Client(base_url=f"http://{LOOPBACK}:{server.port}") as opened:
        yield opened


def test_liveness_does_not_depend_on_readiness(client: httpx.Client, health: Health) -> None:
    health.set_unready("partition 3", "paused")

    response = client.get("/healthz")

    assert (response.status_code, response.content) == (200, b'{"status":"ok"}')


def test_readiness_has_reasons_and_alerts(client: httpx.Client, health: Health) -> None:
    """An alert alone does not change it."""
    health.set_alert("topic", "too small")
    ready = client.get("/readyz")
    health.set_unready("partition 3", "paused")
    unready = client.get("/readyz")

    assert (ready.status_code, ready.headers["Content-Type"]) == (200, "application/json")
    assert ready.json() == {"ready": True, "faults": {}, "alerts": {"topic": "too small"}}
    assert unready.status_code == 503
    assert unready.json() == {"ready": False, "faults": {"partition 3": "paused"}, "alerts": {"topic": "too small"}}


def test_metrics_are_in_the_text_format(client: httpx.Client) -> None:
    response = client.get("/metrics")

    assert (response.status_code, response.headers["Content-Type"]) == (200, CONTENT_TYPE_LATEST)
    assert "coupons_issuer_batch_records" in response.text
    assert "coupons_accept_seconds" not in response.text, "it is the API's"


def test_metrics_say_whether_the_issuer_works(client: httpx.Client, health: Health) -> None:
    """The loop's age shows an issuer that is stuck although its port answers."""
    health.set_unready("partition 3", "paused")
    health.set_alert("topic", "too small")

    lines = client.get("/metrics").text.splitlines()

    assert "coupons_issuer_ready 0.0" in lines
    assert 'coupons_alert_active{alert="topic"} 1.0' in lines
    assert 'coupons_alert_active{alert="undecided"} 0.0' in lines
    assert any(line.startswith("coupons_issuer_iteration_age_seconds ") for line in lines)


def test_a_response_names_no_software(client: httpx.Client) -> None:
    """A version tells an attacker what to try."""
    assert "Server" not in client.get("/readyz").headers


@pytest.mark.parametrize(
    ("name", "status"), [("localhost", 200), ("LOCALHOST:1", 200), ("[::1]:8001", 200), ("evil.example:8001", 421)]
)
@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
def test_without_authentication_no_page_of_another_site_reads(
    client: httpx.Client, path: str, name: str, status: int
) -> None:
    """The page can give a name of its own this address."""
    assert client.get(path, headers={"Host": name}).status_code == status


def test_with_authentication_the_port_has_any_name(health: Health, settings: Settings) -> None:
    """Prometheus reaches it by the name of the host or container, with an API key."""
    with_auth = settings.model_copy(update={"auth": "on"})
    with ExitStack() as opened:
        authenticator = opened.enter_context(resources.open_authenticator(with_auth, "tests"))
        server = HealthServer(health, authenticator, dict, LOOPBACK, 0)
        server.start()
        opened.callback(server.close)
        url = f"http://{LOOPBACK}:{server.port}"

        assert httpx.get(f"{url}/readyz", headers={"Host": "issuer:8001"}).json() == {"ready": True}
        assert httpx.get(f"{url}/metrics", headers={"Host": "issuer:8001"}).status_code == 401


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
def test_head_is_answered_without_a_body(client: httpx.Client, path: str) -> None:
    response = client.head(path)

    assert (response.status_code, response.content) == (200, b"")
    assert int(response.headers["Content-Length"]) > 0


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "not_found"),
        ("GET", "/readyz/", 404, "not_found"),
        ("POST", "/readyz", 405, "method_not_allowed"),
        ("DELETE", "/metrics", 405, "method_not_allowed"),
    ],
)
def test_other_requests_are_refused(client: httpx.Client, method: str, path: str, status: int, code: str) -> None:
    response = client.request(method, path)

    assert (response.status_code, response.json()) == (status, {"code": code})
    assert ("Allow" in response.headers) is (status == 405)


def test_half_requests_take_no_thread(server: HealthServer, client: httpx.Client) -> None:
    """Two hundred clients that never finish their request; others are answered beside them."""
    client.get("/metrics")  # it is written in a thread that waits for the next one
    before = threading.active_count()

    with ExitStack() as opened:
        for _ in range(200):
            connection = opened.enter_context(socket.create_connection((LOOPBACK, server.port)))
            connection.sendall(b"GET /re")
        answers = [client.get(path).status_code for path in ("/readyz", "/metrics")]

        assert answers == [200, 200]
        assert threading.active_count() == before


def test_a_half_request_does_not_hold_up_the_end(health: Health, authenticator: Authenticator) -> None:
    """The thread ends, and the port is free again."""
    first = HealthServer(health, authenticator, dict, LOOPBACK, 0)
    first.start()
    with socket.create_connection((LOOPBACK, first.port)) as connection:
        connection.sendall(b"GET /re")
        assert httpx.get(f"http://{LOOPBACK}:{first.port}/healthz").is_success
        port = first.port

        first.close()

        assert connection.recv(4096).startswith(b"HTTP/1.1 408 ")
    with socket.create_server((LOOPBACK, port)):
        pass


def test_a_port_in_use_is_reported_before_the_thread_starts(health: Health, authenticator: Authenticator) -> None:
    with socket.create_server((LOOPBACK, 0)) as taken, pytest.raises(OSError, match="in use"):
        HealthServer(health, authenticator, dict, LOOPBACK, taken.getsockname()[1])


def test_an_address_may_be_of_ipv6(health: Health, authenticator: Authenticator) -> None:
    server = HealthServer(health, authenticator, dict, "::1", 0)
    server.start()
    with closing(server):
        assert json.loads(httpx.get(f"http://[::1]:{server.port}/readyz").content)["ready"]


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
def test_a_query_is_ignored(client: httpx.Client, path: str) -> None:
    """Load balancers and scrapers add parameters of their own."""
    for method in ("GET", "HEAD"):
        assert client.request(method, f"{path}?format=any&x").status_code == 200
