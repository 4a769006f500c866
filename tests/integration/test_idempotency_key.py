"""A creation that is sent again creates no second coupon, if it carries an Idempotency-Key."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, make_url, text

from service.config import Settings
from service.domain.api_key import NewKey
from service.domain.caller import Role
from service.domain.errors import CreationUnconfirmed, Unavailable
from service.gate.gate_admin import GateAdmin
from service.limits import IDEMPOTENCY_KEY_DAYS
from service.store import engine
from service.usecases.api_keys import ApiKeyService
from service.usecases.coupons import CouponService
from service.usecases.gate_fill import GateFiller
from service.usecases.recover import Recoverer
from stack.ports import any_free
from tests.faults.proxy import Proxy
from tests.fixtures.callers import bearer
from tests.integration.conftest import Query
from tests.waiting import eventually

Create = Callable[..., httpx.Response]
_COUNT = "SELECT count(*) FROM coupons"
_VALUES = ("only once", 100, 0, None, None)


@pytest.fixture
def create(api: httpx.Client, keys: dict[Role, NewKey]) -> Create:
    """Create a coupon, with a header for each Idempotency-Key: `create("a-key", quantity=5)`."""

    def send(*idempotency_keys: str, **values: Any) -> httpx.Response:
        headers = [(b"Idempotency-Key", key.encode("latin-1")) for key in idempotency_keys]
        headers.append((b"Authorization", f"Bearer {keys[Role.ADMIN].text}".encode()))
        return api.post("/coupons", json={"name": "a", "quantity": 9, **values}, headers=headers)

    return send


def test_a_repeated_creation_makes_one_coupon(create: Create, query: Query) -> None:
    """Also of eight at the same time. Quotes are no part of the key, and the order of fields none of the values."""
    with ThreadPoolExecutor(4) as pool:
        responses = list(pool.map(lambda _: create("a-key"), range(8)))
    repeats = [create('"a-key"'), create("a-key", waitlist=0)]
    other = create('"another, key"')

    assert {response.status_code for response in (*responses, *repeats, other)} == {201}
    assert len({response.headers["Location"] for response in (*responses, *repeats)}) == 1
    assert len({response.content for response in (*responses, *repeats)}) == 1
    assert other.headers["Location"] != responses[0].headers["Location"]
    assert query(_COUNT) == [(2,)]


def test_a_key_with_other_values_is_refused(create: Create, query: Query) -> None:
    """The caller has sent two different requests with one key: neither is taken for the other."""
    location = create("a-key").headers["Location"]

    reused = create("a-key", quantity=10)

    assert (reused.status_code, reused.json()["code"]) == (422, "idempotency_key_reused")
    assert location.removeprefix("/coupons/") in reused.json()["detail"]
    assert query(_COUNT) == [(1,)]


def test_a_refused_request_does_not_use_its_key_up(create: Create) -> None:
    """Its corrected repeat is accepted."""
    assert create("a-key", quantity=0).status_code == 422

    assert create("a-key", quantity=1).status_code == 201


def test_a_repeat_shows_the_coupon_as_it_is(create: Create, api: httpx.Client, keys: dict[Role, NewKey]) -> None:
    """Not as it was: the caller goes on with it."""
    location = create("a-key").headers["Location"]
    changed = api.patch(location, json={"quantity": 12}, headers=bearer(keys[Role.ADMIN].text))

    repeat = create("a-key")

    assert (repeat.json()["quantity"], repeat.headers["ETag"]) == (12, changed.headers["ETag"])


def test_a_key_belongs_to_its_caller(api: httpx.Client, store: Engine, create: Create) -> None:
    """Another caller's key is another one: nobody can find out what others created."""
    other = ApiKeyService(store, "tests").create("another", Role.ADMIN, timedelta(days=1)).text
    headers = {**bearer(other), "Idempotency-Key": "a-key"}
    location = create("a-key").headers["Location"]

    eventually(lambda: api.get("/coupons", headers=bearer(other)).status_code == 200)
    response = api.post("/coupons", json={"name": "b", "quantity": 1}, headers=headers)
    assert response.status_code == 201
    assert response.headers["Location"] != location


@pytest.mark.parametrize(
    "sent",
    [[""], ['""'], ["k" * 256], ['"a'], ['a"'], ["a b"], ["a,b"], ["a\\"], ["é"], ['"\t"'], ["a", "a"], ["a", "b"]],
    ids=lambda sent: ascii(" ".join(sent))[:8],
)
def test_a_malformed_key_is_refused(create: Create, query: Query, sent: list[str]) -> None:
    """It would be another key for another part of the client's side, or for a proxy."""
    response = create(*sent)

    assert (response.status_code, response.json()["code"]) == (422, "invalid")
    assert "Idempotency-Key" in response.json()["detail"]
    assert query(_COUNT) == [(0,)]


def test_a_key_expires(create: Create, admin: Engine, query: Query) -> None:
    """After some days, with the next creation that has a key: the table does not grow for ever."""
    first = create("a-key").headers["Location"]
    create("another-key")
    with admin.begin() as tx:
        expired = text("UPDATE idempotency_keys SET created_at = now() - make_interval(days => :days, secs => 1)")
        tx.execute(expired, {"days": IDEMPOTENCY_KEY_DAYS})

    create("a-third-key")

    assert query("SELECT key FROM idempotency_keys") == [("a-third-key",)]
    assert create("a-key").headers["Location"] != first


@pytest.fixture
def database(store: Engine) -> Iterator[Proxy]:
    """A proxy in front of the emptied database."""
    with Proxy(any_free(), make_url(str(store.url)).port or 0) as proxy:
        yield proxy


@pytest.fixture
def behind_proxy(
    settings: Settings, database: Proxy, gate_admin: GateAdmin, gate_filler: GateFiller, recoverer: Recoverer
) -> Iterator[CouponService]:
    """Creates coupons over the proxy."""
    url = make_url(settings.database_url).set(port=database.port)
    connected = engine.build(url.render_as_string(hide_password=False), "tests")
    yield CouponService(settings, connected, gate_admin, gate_filler, recoverer, "tests")
    connected.dispose()


def test_after_a_lost_answer_the_repeat_with_a_key_creates_no_second_coupon(
    database: Proxy, behind_proxy: CouponService, query: Query
) -> None:
    """The coupon was stored, the caller is told to repeat, and the repeat returns it."""
    database.drop_response(to=b"COMMIT", after=b"INSERT INTO coupons")
    with pytest.raises(Unavailable) as caught:
        behind_proxy.create(*_VALUES, "a-key")
    assert not isinstance(caught.value, CreationUnconfirmed)

    repeated = behind_proxy.create(*_VALUES, "a-key")

    assert database.counts["responses dropped"] == 1
    assert query("SELECT id FROM coupons") == [(repeated.id,)]


def test_after_a_lost_answer_a_creation_without_a_key_is_unconfirmed(
    database: Proxy, behind_proxy: CouponService, query: Query
) -> None:
    """Nobody is told to repeat what would create a second coupon; before the COMMIT nothing was created."""
    database.drop_response(to=b"COMMIT", after=b"INSERT INTO coupons")
    with pytest.raises(CreationUnconfirmed):
        behind_proxy.create(*_VALUES)
    assert query(_COUNT) == [(1,)]

    with database.refusing(), pytest.raises(Unavailable) as caught:
        behind_proxy.create(*_VALUES)
    assert not isinstance(caught.value, CreationUnconfirmed)
    assert query(_COUNT) == [(1,)]
