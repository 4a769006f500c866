"""The whole system with authentication: keys and tokens of the commands, a sale with tickets, and the issuer's port."""

import os
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest

from service.domain.caller import Role
from tests.fixtures.running import running
from tests.system import System, client_answer


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """The system with AUTH=on, as `AUTH=on make up` starts it."""
    with running(tmp_path_factory.mktemp("secured"), {"AUTH": "on"}) as system:
        system.wait_until_ready()
        yield system
        system.wait_until_idle()
        system.assert_promises()


def test_keys_and_tokens_of_the_commands_open_the_api(secured: System) -> None:
    """An administrator's key creates a coupon; a user exchanges a token for a ticket and requests it, once."""
    secret = coupons(secured, "keys", "new", "the shop", "--role", "admin")
    admin = {"Authorization": f"Bearer {secret}"}
    with httpx.Client(base_url=secured.stack.api_url, timeout=10) as client:
        secured.eventually(lambda: client.get("/coupons", headers=admin).status_code == 200)
        location = client.post("/coupons", json={"name": "a", "quantity": 5}, headers=admin).headers["Location"]
        token = {"Authorization": f"Bearer {coupons(secured, 'token', '42')}"}
        exchanged = client.post("/tickets", json={}, headers=token)
        ticket = {"Authorization": f"Bearer {exchanged.json()['ticket']}"}
        accepted = client.post(f"{location}/issuances", json={}, headers=ticket)
        repeated = client.post(f"{location}/issuances", json={}, headers=token)

        secured.history += [client_answer(42, accepted.json()["coupon_id"], one) for one in (accepted, repeated)]
        assert (exchanged.status_code, accepted.status_code, repeated.status_code) == (201, 202, 409)
        path = accepted.headers["Location"]
        secured.eventually(lambda: client.get(path, headers=ticket).json()["state"] == "issued")
        assert client.get(path).status_code == 401
        other = {"Authorization": f"Bearer {coupons(secured, 'token', '43')}"}
        assert client.get(path, headers=other).status_code == 404

        coupons(secured, "keys", "revoke", secret[:11])
        secured.eventually(lambda: client.get("/coupons", headers=admin).status_code == 401)
    (row,) = [line for line in coupons(secured, "keys", "list").splitlines() if line.startswith(secret[:11])]
    assert row.split("\t")[1] == "admin"
    assert row.split("\t")[2].startswith("revoked ")
    assert secret not in row


def test_a_sale_sells_out_exactly(secured: System) -> None:
    """A back end requests the coupon for its users."""
    coupon = secured.make_coupon(quantity=20)
    for user in range(1, 31):
        response = secured.request_issuance(coupon, user)
        assert response is not None
        assert response.status_code == (202 if user <= 20 else 409), response.text
    secured.wait_until_idle()
    assert secured.count("SELECT issued FROM coupons WHERE id = :id", id=coupon) == 20


def test_the_port_of_the_issuer_shows_its_reasons_to_operators_only(secured: System) -> None:
    """Readiness itself is open; metrics need a key. A back end's key is not enough."""
    url, back_end = secured.stack.issuer_url, secured.credentials.headers(Role.ON_BEHALF)

    assert httpx.get(f"{url}/readyz").json() == {"ready": True}
    assert httpx.get(f"{url}/readyz", headers=back_end).json() == {"ready": True}
    assert httpx.get(f"{url}/metrics").status_code == 401
    assert httpx.get(f"{url}/metrics", headers=back_end).status_code == 403
    assert httpx.get(f"{url}/metrics", auth=secured.credentials).status_code == 200
    assert httpx.get(f"{url}/readyz", auth=secured.credentials).json().keys() == {"ready", "faults", "alerts"}


def coupons(system: System, *arguments: str) -> str:
    """Return what a command prints."""
    command = (sys.executable, "-m", "service.cli", *arguments)
    environment = {**os.environ, **system.stack.environment}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    return ended.stdout.strip()
