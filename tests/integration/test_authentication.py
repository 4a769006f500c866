"""Who may call: credentials, roles, and what a caller sees of others, over HTTP on the batch path and on the routes."""

import base64
import hashlib
import hmac
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import datetime, timedelta, tzinfo
from functools import partial
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from fastapi.routing import iter_route_contexts
from redis import Redis
from sqlalchemy import Engine, text

from service import resources as service_resources
from service.api import app, plain_requests
from service.api.authorization import permissions
from service.api.plain_issuance import PlainIssuance
from service.config import Settings
from service.domain.api_key import NewKey
from service.domain.caller import (
    ROLE_PERMISSIONS,
    STREAM_PERMISSIONS,
    TICKET_PERMISSIONS,
    TOKEN_PERMISSIONS,
    Caller,
    Permission,
    Role,
)
from service.domain.coupon import Coupon
from service.domain.errors import Unauthenticated, Unavailable
from service.domain.request_id import RequestIds
from service.domain.session import Sessions
from service.domain.ticket import Purpose, Tickets
from service.identity import key_set as key_sets
from service.identity.key_set import KeySet
from service.identity.tokens import TokenVerifier, sign
from service.limits import MAX_SAFE_ID
from service.log_events import LogEvent
from service.usecases import api_keys
from service.usecases.api_keys import ApiKeyCache, ApiKeyService
from service.usecases.authenticate import Authenticator
from testkit.key_server import KeyServer, algorithm_of
from tests.fixtures.callers import SECRET, bearer, head_of, serving, ticket, token
from tests.log import Log
from tests.waiting import eventually

PEM, PKCS8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
_UNSAFE_ALIASES = ("/coupons/", "//coupons", "/coupons/1/", "/coupons/1/verification/", "/%63oupons", "/Coupons")


def credentials(keys: Mapping[Role, NewKey]) -> dict[str, tuple[str, frozenset[Permission]]]:
    """Return one of each kind of credentials, with what it may do."""
    return {
        **{f"key {role}": (key.text, ROLE_PERMISSIONS[role]) for role, key in keys.items()},
        "token": (token(), TOKEN_PERMISSIONS),
        "ticket": (ticket(Purpose.ACCEPT), TICKET_PERMISSIONS),
        "stream ticket": (ticket(Purpose.STREAM), STREAM_PERMISSIONS),
    }


def test_every_route_states_what_it_requires(with_auth: Settings, log_id: int) -> None:
    """Those of the OpenAPI document, and those of the application that it does not show; and no other is listed."""
    del log_id
    common = service_resources.open_resources(with_auth, "tests")
    built = app.create_app(common)
    common.close()
    documented = {(method.upper(), path) for path, item in built.openapi()["paths"].items() for method in item}
    served = {(method, route.path) for route in iter_route_contexts(built.routes) for method in route.methods or ()}

    assert documented < served
    assert served - {("HEAD", "/openapi.json")} == permissions(public_docs=False).keys()


def test_each_route_admits_who_has_its_permission_and_nobody_else(api: httpx.Client, keys: dict[Role, NewKey]) -> None:
    """401 without credentials, 403 with others; with those that suffice the route itself answers."""
    for (method, template), needed in permissions(public_docs=False).items():
        path = re.sub("{.*?_id}", "999", template).replace("{name}", "wait.css")
        _assert_admits(partial(head_of, api, method, path), needed, keys)


def test_the_batch_path_admits_who_has_the_permission_of_its_route(
    api: httpx.Client, keys: dict[Role, NewKey], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the route does, which takes requests without a body."""
    taken = []

    class Counted(PlainIssuance):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            taken.append(self)

    monkeypatch.setattr(plain_requests, "PlainIssuance", Counted)
    needed = permissions(public_docs=False)["POST", "/coupons/{coupon_id}/issuances"]

    _assert_admits(partial(api.post, "/coupons/999/issuances", json={"user_id": 7}), needed, keys)

    assert len(taken) == 1 + len(credentials(keys))


def _assert_admits(call: Callable[..., httpx.Response], needed: Permission, keys: Mapping[Role, NewKey]) -> None:
    without = call().status_code
    assert (without == 401) == (needed is not Permission.PUBLIC), (call, without)
    for name, (text_, permitted) in credentials(keys).items():
        got = call(headers=bearer(text_)).status_code
        may = needed is Permission.PUBLIC or needed in permitted
        assert (got == 403) == (not may), (call, name, got)
        assert got != 401, (call, name)


def test_no_alias_of_a_path_avoids_the_check(api: httpx.Client) -> None:
    """Slashes, case and percent-encoding, and methods that a route does not name."""
    for path in _UNSAFE_ALIASES:
        for method in ("GET", "HEAD", "POST", "OPTIONS", "PUT"):
            assert api.request(method, path).status_code in (401, 404, 405), (method, path)
    for method in ("HEAD", "OPTIONS", "TRACE", "get"):
        for path in ("/coupons", "/metrics", "/openapi.json", "/dead-letters"):
            assert api.request(method, path).status_code in (401, 405), (method, path)


@pytest.mark.parametrize(
    "alias", ["%b%%2Fverification", "%b/verification%%0A", "%b/verification%%2F", "%b%%2fverification", "%b/%%2E%%2E/1"]
)
def test_an_encoded_separator_is_none(
    api: httpx.Client, keys: dict[Role, NewKey], make_coupon: Callable[..., Coupon], alias: str
) -> None:
    """What may be done is looked up by the same path that the route is found by."""
    path = (alias.encode() % f"/coupons/{make_coupon().id}".encode()).decode()
    response = api.get(path, headers=bearer(keys[Role.ADMIN].text))

    assert (response.status_code, response.json()["code"]) == (404, "not_found")


def test_head_is_get_without_a_body(
    api: httpx.Client, keys: dict[Role, NewKey], make_coupon: Callable[..., Coupon]
) -> None:
    """Status and headers are the same (RFC 9110, section 9.3.2); a path without GET has no HEAD."""
    headers = bearer(keys[Role.ADMIN].text)
    for path in ("/healthz", f"/coupons/{make_coupon().id}", "/coupons/x", "/dead-letters?limit=1"):
        read, head = (api.request(method, path, headers=headers) for method in ("GET", "HEAD"))
        assert (head.status_code, head.content) == (read.status_code, b"")
        assert head.headers == read.headers
    refused = api.head("/dead-letters/replay", headers=headers)
    assert (refused.status_code, refused.headers["Allow"]) == (405, "POST")
    assert api.put("/coupons/1", headers=headers).headers["Allow"] == "GET, HEAD, PATCH"


def test_a_user_requests_a_coupon_with_a_token_or_a_ticket(
    api: httpx.Client, make_coupon: Callable[..., Coupon]
) -> None:
    """The credentials name the user; the body need not, and must not name another. A ticket is valid again."""
    path = f"/coupons/{make_coupon(quantity=9).id}/issuances"
    exchanged = api.post("/tickets", json={}, headers=bearer(token("8")))
    assert exchanged.status_code == 201, exchanged.text
    assert exchanged.headers["Cache-Control"] == "no-store"
    assert exchanged.json()["user_id"] == 8

    with_token = api.post(path, json={}, headers=bearer(token("7")))
    with_ticket = [api.post(path, json={"user_id": 8}, headers=bearer(exchanged.json()["ticket"])) for _ in range(2)]
    other = api.post(path, json={"user_id": 9}, headers=bearer(token("7")))

    assert (with_token.status_code, with_token.json()["user_id"]) == (202, 7)
    assert [response.status_code for response in with_ticket] == [202, 409]
    assert with_ticket[1].json()["code"] == "duplicate"
    assert (other.status_code, other.json()["code"]) == (403, "forbidden")


def test_a_back_end_names_the_user(
    api: httpx.Client, keys: dict[Role, NewKey], make_coupon: Callable[..., Coupon]
) -> None:
    path = f"/coupons/{make_coupon(quantity=9).id}/issuances"
    headers = bearer(keys[Role.ON_BEHALF].text)

    assert api.post(path, json={"user_id": 7}, headers=headers).json()["user_id"] == 7
    assert api.post(path, json={}, headers=headers).status_code == 422


def test_the_request_of_another_user_does_not_exist(
    api: httpx.Client, keys: dict[Role, NewKey], make_coupon: Callable[..., Coupon]
) -> None:
    """The answer is that for an id that was never made; the user, a back end and an operator read it."""
    path = f"/coupons/{make_coupon(quantity=9).id}/issuances"
    location = api.post(path, json={}, headers=bearer(token("7"))).headers["Location"]
    never_made = api.get("/issuances/" + 60 * "A", headers=bearer(token("8"))).json()
    others = [token("8"), ticket(Purpose.ACCEPT, 8), ticket(Purpose.STREAM, 8)]
    readers = [token("7"), ticket(Purpose.STREAM), keys[Role.ON_BEHALF].text, keys[Role.READ].text]

    for place in (location, f"{location}/history"):
        for one in others:
            response = api.get(place, headers=bearer(one))
            assert response.status_code == 404
            assert {**response.json(), "problem_id": ""} == {**never_made, "problem_id": ""}
        for one in readers:
            assert api.get(place, headers=bearer(one)).json()["user_id"] == 7


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": -6},
        {"nbf": 60},
        {"exp": None},
        {"nbf": None},
        {"aud": None},
        {"iss": None},
        {"sub": None},
        {"aud": "others"},
        {"iss": "https://other.example"},
        *({"sub": value} for value in ("", "0", "-1", "07", "7.0", "seven", "٧", "7 ", str(2**53), 7, True, [7])),
        {"exp": "soon"},
        {"exp": 1e400},
    ],
    ids=str,
)
def test_a_token_that_is_not_valid_is_refused(with_auth: Settings, claims: dict[str, Any]) -> None:
    """Every claim that is required, and each form of a user that is not an integer id."""
    verifier = TokenVerifier(with_auth, lambda _: None)
    now = int(time.time())
    relative = {
        name: now + value if name in ("exp", "nbf") and type(value) is int else value for name, value in claims.items()
    }

    with pytest.raises(Unauthenticated):
        verifier.verify(token(**{"user_id" if name == "sub" else name: value for name, value in relative.items()}))
    assert verifier.verify(token(str(MAX_SAFE_ID))).user_id == MAX_SAFE_ID


@pytest.mark.parametrize(
    ("claims", "is_valid"),
    [
        ({"exp": -29}, True),
        ({"exp": -30}, False),
        ({"nbf": 30}, True),
        ({"nbf": 31}, False),
    ],
    ids=str,
)
def test_the_clocks_may_differ_by_the_leeway(
    with_auth: Settings, monkeypatch: pytest.MonkeyPatch, claims: dict[str, int], is_valid: bool
) -> None:
    """By JWT_LEEWAY_SECONDS on both sides, and not by a second more. The clock stands still."""
    verifier = TokenVerifier(with_auth.model_copy(update={"jwt_leeway_seconds": 30}), lambda _: None)
    now = int(time.time())
    signed = token(**{name: now + value for name, value in claims.items()})
    monkeypatch.setattr(jwt.api_jwt, "datetime", _StoppedClock(now))

    assert _is_valid(verifier, signed) is is_valid


class _StoppedClock:
    """In place of the class `datetime` of PyJWT."""

    def __init__(self, now: int) -> None:
        self._now = now

    def now(self, tz: tzinfo) -> datetime:
        """Return the same time again and again."""
        return datetime.fromtimestamp(self._now, tz)


def test_what_is_no_credential_is_refused(api: httpx.Client) -> None:
    """Neither what has another form, nor a token that was changed at its end."""
    valid = token()
    for text_ in ("x", "a.b.c", "..", "x" * 40, "ck_", "a" * 10_000, valid[:-3], valid + ".", valid + "A"):
        response = api.get("/coupons", headers=bearer(text_))

        assert (response.status_code, response.json()["code"]) == (401, "unauthenticated"), text_
        assert response.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
    assert api.get("/coupons", headers=bearer(valid)).status_code == 200


def test_a_token_without_a_signature_is_refused(with_auth: Settings) -> None:
    """Neither `none`, nor another algorithm of the same family."""
    verifier = TokenVerifier(with_auth, lambda _: None)
    claims = jwt.decode(token(), options={"verify_signature": False})

    for algorithm, key in (("none", ""), ("HS512", SECRET * 2)):
        with pytest.raises(Unauthenticated):
            verifier.verify(jwt.encode(claims, key, algorithm))


def _signed(key_id: str, private_key: Any) -> str:
    claims = jwt.decode(token(), options={"verify_signature": False})
    return jwt.encode(claims, private_key, algorithm_of(private_key), headers={"kid": key_id})


@pytest.fixture
def key_server() -> Iterator[KeyServer]:
    """A server of public keys."""
    with KeyServer() as server:
        yield server


def test_public_keys_are_read_again_and_the_last_good_set_is_kept(
    with_auth: Settings, key_server: KeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RS256, ES256 and EdDSA; a key that is published later is found, and one is still valid when the server hangs."""
    monkeypatch.setattr(key_sets, "_COOLDOWN_SECONDS", 0.1)
    monkeypatch.setattr(key_sets, "_TIMEOUT_SECONDS", 0.5)
    rs: Any = rsa.generate_private_key(65537, 2048)
    es: Any = ec.generate_private_key(ec.SECP256R1())
    ed: Any = ed25519.Ed25519PrivateKey.generate()
    asymmetric = with_auth.model_copy(update={"jwt_algorithms": "RS256,ES256,EdDSA", "jwt_jwks_url": key_server.url})
    keys = KeySet(key_server.url)
    verifier = TokenVerifier(asymmetric, keys.find)
    with pytest.raises(Unavailable):
        verifier.verify(_signed("rs", rs))
    key_server.add("rs", rs)
    keys.start()
    try:
        eventually(lambda: _is_valid(verifier, _signed("rs", rs)))
        for name, key in (("es", es), ("ed", ed)):
            assert not _is_valid(verifier, _signed(name, key))
            key_server.add(name, key)
            eventually(lambda name=name, key=key: _is_valid(verifier, _signed(name, key)))  # type: ignore[misc]
        key_server.answering.clear()
        before = key_server.reads
        eventually(lambda: not _is_valid(verifier, _signed("new", rs)) and key_server.reads > before)
        began = time.monotonic()
        assert _is_valid(verifier, _signed("rs", rs))
        assert time.monotonic() - began < 2.5  # a read of the keys has a timeout of five seconds
        pem = rs.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        assert not _is_valid(verifier, _confused(pem))
    finally:
        key_server.answering.set()
        keys.close()


@pytest.mark.parametrize(
    "body",
    [b"[" * 100_000, b"{", b"{}", b"[1]", b"\xff", b'{"keys":[1]}', b'{"keys":[{"kty":"EC"}]}'],
    ids=["deep", "cut", "empty", "list", "no text", "no key", "half a key"],
)
def test_no_response_ends_the_reading_of_public_keys(
    with_auth: Settings, key_server: KeyServer, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    """While the response is no key set the last keys count; afterwards a key that was withdrawn is refused."""
    monkeypatch.setattr(key_sets, "_COOLDOWN_SECONDS", 0.02)
    monkeypatch.setattr(key_sets, "_INTERVAL_SECONDS", 0.04)
    first, second = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    key_server.add("first", first)
    keys = KeySet(key_server.url)
    asymmetric = with_auth.model_copy(update={"jwt_algorithms": "ES256", "jwt_jwks_url": key_server.url})
    verifier = TokenVerifier(asymmetric, keys.find)
    keys.start()
    try:
        eventually(lambda: _is_valid(verifier, _signed("first", first)))
        key_server.body, before = body, key_server.reads
        eventually(lambda: key_server.reads > before + 1)
        assert _is_valid(verifier, _signed("first", first))
        key_server.keys.clear()
        key_server.add("second", second)
        key_server.body = b""
        eventually(lambda: not _is_valid(verifier, _signed("first", first)))
        assert _is_valid(verifier, _signed("second", second))
    finally:
        keys.close()


def _confused(public_pem: bytes) -> str:
    """Return a token whose HS256 signature was made with a public key as the secret; PyJWT refuses to make it."""

    def encode(part: dict[str, Any]) -> bytes:
        return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")

    claims = jwt.decode(token(), options={"verify_signature": False})
    signed = encode({"alg": "HS256", "typ": "JWT", "kid": "rs"}) + b"." + encode(claims)
    mac = base64.urlsafe_b64encode(hmac.digest(public_pem, signed, hashlib.sha256)).rstrip(b"=")
    return (signed + b"." + mac).decode()


def _is_valid(verifier: TokenVerifier, text_: str) -> bool:
    try:
        return verifier.verify(text_).user_id == 7
    except (Unauthenticated, Unavailable):
        return False


def test_a_ticket_expires_with_its_token_and_is_no_other_kind_of_id(
    api: httpx.Client, ids: RequestIds, make_coupon: Callable[..., Coupon]
) -> None:
    """It is not exchanged for another one; an expired or changed one, and a request id, are not accepted."""
    path = f"/coupons/{make_coupon(quantity=9).id}/issuances"
    soon = int(time.time()) + 20
    exchanged = api.post("/tickets", json={"purpose": "accept"}, headers=bearer(token(exp=soon))).json()
    again = api.post("/tickets", json={}, headers=bearer(exchanged["ticket"]))
    stream = api.post("/tickets", json={"purpose": "stream"}, headers=bearer(token())).json()["ticket"]
    expired = ticket(Purpose.ACCEPT, seconds=0)
    good = ticket(Purpose.ACCEPT)
    changed = good[:5] + ("A" if good[5] != "A" else "B") + good[6:]

    assert exchanged["expires_at"] == time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(soon))
    assert again.status_code == 403
    assert api.post(path, json={}, headers=bearer(stream)).status_code == 403
    for text_ in (expired, changed, ids.mint(1, 7, 0), ids.mint(1, 7, 0)[:40]):
        assert api.post(path, json={}, headers=bearer(text_)).status_code == 401


@pytest.mark.parametrize(("left_seconds", "is_issued"), [(-1, False), (0, False), (0.9, False), (1, True), (9e9, True)])
def test_no_ticket_is_issued_that_has_expired(
    with_auth: Settings, store: Engine, left_seconds: float, is_issued: bool
) -> None:
    """A token is accepted for some seconds more, because clocks differ; a ticket counts by the clock that issued it."""
    tickets, verifier = Tickets([b"a key"]), TokenVerifier(with_auth, lambda _: None)
    authenticator = Authenticator(
        ApiKeyCache(store), Sessions([]), tickets, verifier, 3600, lambda: 1000.0, enabled=True
    )
    caller = Caller("user 7", TOKEN_PERMISSIONS, 7, 1000.0 + left_seconds)

    if is_issued:
        issued, _ = authenticator.issue_ticket(caller, Purpose.ACCEPT)
        assert authenticator.authenticate(f"Bearer {issued}").user_id == 7
    else:
        with pytest.raises(Unauthenticated):
            authenticator.issue_ticket(caller, Purpose.ACCEPT)


def test_a_revoked_key_is_refused_and_a_rotated_one_overlaps(
    api: httpx.Client, store: Engine, keys: dict[Role, NewKey]
) -> None:
    """The old key stays valid for the overlap, and what was used is recorded."""
    service = ApiKeyService(store, "the administrator")
    old = keys[Role.READ]
    new = service.rotate(old.prefix, timedelta(seconds=8), None)

    eventually(lambda: api.get("/coupons", headers=bearer(new.text)).status_code == 200)
    assert api.get("/coupons", headers=bearer(old.text)).status_code == 200
    eventually(lambda: api.get("/coupons", headers=bearer(old.text)).status_code == 401)
    service.revoke(new.prefix)
    eventually(lambda: api.get("/coupons", headers=bearer(new.text)).status_code == 401)
    used = {key.prefix: (key.owner, key.last_used_at is not None) for key in service.list_all()}
    assert used[old.prefix] == used[new.prefix] == ("the read caller", True)
    assert used[keys[Role.ADMIN].prefix] == ("the admin caller", False)


def test_a_key_is_revoked_with_the_database_alone(settings: Settings, keys: dict[Role, NewKey]) -> None:
    """Kafka and Redis are away, and no key of request ids is set: a key that others have seen cannot wait for them."""
    environment = {
        "PATH": os.environ["PATH"],
        "DATABASE_URL": settings.database_url,
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "REDIS_URL": "redis://127.0.0.1:1/0",
        "CELERY_BROKER_URL": "redis://127.0.0.1:1/1",
    }

    def coupons_keys(*arguments: str) -> str:
        command = (sys.executable, "-m", "service.cli", "keys", *arguments)
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=True).stdout

    made = json.loads(coupons_keys("new", "me", "--role", "read", "--json"))
    coupons_keys("revoke", keys[Role.ADMIN].prefix)
    states = {row.split("\t")[0]: row.split("\t")[2] for row in coupons_keys("list").splitlines()}

    assert states[made["prefix"]].startswith("valid until ")
    assert states[keys[Role.ADMIN].prefix].startswith("revoked ")


def test_keys_outlive_the_database_for_a_while(
    separate_store: Engine, admin: Engine, keys: dict[Role, NewKey], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While they cannot be read, the keys that were read are valid for some minutes, then nobody is trusted."""
    cache = ApiKeyCache(separate_store)
    with pytest.raises(Unavailable):
        cache.find(keys[Role.ADMIN].text)
    cache.refresh()
    with _unreadable_keys(admin):
        with pytest.raises(Unavailable):
            cache.refresh()
        assert cache.find(keys[Role.ADMIN].text)
        monkeypatch.setattr(api_keys, "_GRACE_SECONDS", 0.0)
        with pytest.raises(Unavailable):
            cache.find(keys[Role.ADMIN].text)


def test_a_use_is_recorded_once_the_database_answers_again(
    separate_store: Engine, admin: Engine, keys: dict[Role, NewKey]
) -> None:
    cache = ApiKeyCache(separate_store)
    cache.refresh()
    cache.find(keys[Role.ADMIN].text)
    with _unreadable_keys(admin), pytest.raises(Unavailable):
        cache.refresh()
    cache.refresh()
    used = {key.prefix: key.last_used_at is not None for key in ApiKeyService(separate_store, "me").list_all()}
    assert used[keys[Role.ADMIN].prefix]


@contextmanager
def _unreadable_keys(admin: Engine) -> Iterator[None]:
    with admin.begin() as tx:
        tx.execute(text("ALTER TABLE api_keys RENAME TO away"))
    try:
        yield
    finally:
        with admin.begin() as tx:
            tx.execute(text("ALTER TABLE away RENAME TO api_keys"))


def _refuses(cache: ApiKeyCache, key: NewKey) -> bool:
    with suppress(Unauthenticated):
        cache.find(key.text)
        return False
    return True


@contextmanager
def _malformed_key(admin: Engine) -> Iterator[None]:
    """Let the driver fail: it has no object for this time."""
    with admin.begin() as tx:
        tx.execute(text("UPDATE api_keys SET expires_at = 'infinity' WHERE role = 'read'"))
    yield
    with admin.begin() as tx:
        tx.execute(text("UPDATE api_keys SET expires_at = NULL WHERE role = 'read'"))


@pytest.mark.parametrize("failing", [_unreadable_keys, _malformed_key])
def test_no_failure_ends_the_reading_of_keys(
    separate_store: Engine,
    admin: Engine,
    keys: dict[Role, NewKey],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    failing: Callable[[Engine], AbstractContextManager[None]],
) -> None:
    """A key that is revoked afterwards is refused."""
    monkeypatch.setattr(api_keys, "REFRESH_SECONDS", 0.05)
    key = keys[Role.ADMIN]
    cache = ApiKeyCache(separate_store)
    cache.start()
    try:
        eventually(lambda: cache.find(key.text))
        with failing(admin):
            eventually(lambda: caplog.text.count(LogEvent.API_KEYS_NOT_READ) > 1)
            assert cache.find(key.text)
        ApiKeyService(separate_store, "tests").revoke(key.prefix)
        eventually(lambda: _refuses(cache, key))
    finally:
        cache.close()


def test_every_change_names_the_key(api: httpx.Client, keys: dict[Role, NewKey], store: Engine) -> None:
    """Of a coupon: its creation and its changes. An operator changes its state only."""
    admin, operator = keys[Role.ADMIN], keys[Role.OPERATE]
    created = api.post("/coupons", json={"name": "a", "quantity": 1}, headers=bearer(admin.text))
    path = created.headers["Location"]
    paused = api.patch(path, json={"state": "paused"}, headers=bearer(operator.text))
    raised = api.patch(path, json={"quantity": 2}, headers=bearer(operator.text))

    assert (created.status_code, paused.status_code, raised.status_code) == (201, 200, 403)
    with store.begin() as tx:
        changed_by = tx.execute(text("SELECT changed_by FROM coupon_changes ORDER BY version")).scalars().all()
    assert changed_by == [f"key {admin.prefix} (the admin caller)", f"key {operator.prefix} (the operate caller)"]


def test_the_reasons_of_readiness_are_for_operators(api: httpx.Client, keys: dict[Role, NewKey]) -> None:
    """Credentials that are not valid do not make a health check fail."""
    public = [api.get("/readyz"), api.get("/readyz", headers=bearer("x.y.z"))]
    private = api.get("/readyz", headers=bearer(keys[Role.READ].text))

    for response in public:
        assert (response.status_code, response.json()) == (200, {"ready": True, "faults": [], "degraded": []})
    assert private.json().keys() > public[0].json().keys()


def test_a_token_of_the_command_is_valid(with_auth: Settings) -> None:
    assert TokenVerifier(with_auth, lambda _: None).verify(sign(with_auth, 7, 60)).user_id == 7


_CROSS_SITE: list[tuple[dict[str, str], int]] = [
    ({}, 201),
    ({"Sec-Fetch-Site": "same-origin"}, 201),
    ({"Sec-Fetch-Site": "cross-site"}, 403),
    ({"Sec-Fetch-Site": "same-site"}, 403),
    ({"Origin": "https://evil.example"}, 403),
    ({"Origin": "https://shop.example"}, 201),
    ({"Sec-Fetch-Site": "cross-site", "Origin": "https://shop.example"}, 201),
    ({"Sec-Fetch-Site": "cross-site", "Origin": "https://shop.example.evil.example"}, 403),
    ({"Origin": "null"}, 403),
    ({"Host": "evil.example"}, 421),
    ({"Host": "evil.example:80", "Origin": "http://evil.example:80"}, 421),
    ({"Host": "localhost:1"}, 201),
]


@pytest.fixture
def open_api(settings: Settings, real_log: Log, redis: Redis) -> Iterator[httpx.Client]:
    """A client of an API without authentication, which pages of one other site may call."""
    del real_log, redis  # both are emptied
    with serving(settings.model_copy(update={"cors_origins": "https://shop.example"})) as client:
        yield client


@pytest.mark.parametrize(("headers", "status"), _CROSS_SITE, ids=str)
def test_without_authentication_no_other_site_can_write(
    open_api: httpx.Client, make_coupon: Callable[..., Coupon], headers: dict[str, str], status: int
) -> None:
    """A page that the operator visits neither sends a form here, nor reaches the API under a name of its own.

    With a body, without one, and on the batch path.
    """
    issuances = f"/coupons/{make_coupon().id}/issuances"
    created = open_api.post("/coupons", json={"name": "a", "quantity": 1}, headers=headers)
    accepted = open_api.post(issuances, json={"user_id": 7}, headers=headers)
    discarded = open_api.post("/dead-letters/9/discard", headers=headers)

    statuses = (created.status_code, accepted.status_code, discarded.status_code)
    assert statuses == ((201, 202, 404) if status == 201 else (status, status, status))


def test_without_authentication_nobody_gets_a_ticket(open_api: httpx.Client) -> None:
    """It would be a ticket of no user."""
    response = open_api.post("/tickets", json={})

    assert (response.status_code, response.json()["code"]) == (403, "forbidden")
