"""What a server of public keys can do to the API that reads them: nothing but publish keys."""

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from service.domain.errors import Unavailable
from service.identity import key_set as key_sets
from service.identity.key_set import KeySet
from stack.certificates import Authority
from tests.waiting import eventually

_TIMEOUT_SECONDS = 0.5
_PIECES = 10
_KEY = json.loads(jwt.get_algorithm_by_name("EdDSA").to_jwk(ed25519.Ed25519PrivateKey.generate().public_key()))
_SET = json.dumps({"keys": [{**_KEY, "kid": "one", "use": "sig"}]}).encode()
_TOO_LONG = _SET.ljust(1_000_001)

Answer = Callable[[BaseHTTPRequestHandler], None]


def _send(handler: BaseHTTPRequestHandler, body: bytes = _SET) -> None:
    _begin(handler, body)
    handler.wfile.write(body)


def _begin(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()


def _redirect(handler: BaseHTTPRequestHandler) -> None:
    """Name another place, which has a valid set."""
    if handler.path == "/another":
        _send(handler)
    else:
        handler.send_response(302)
        handler.send_header("Location", "/another")
        handler.end_headers()


def _send_slowly(handler: BaseHTTPRequestHandler) -> None:
    """Send a valid set in pieces: none of them is late, the set is."""
    size = len(_SET) // _PIECES + 1
    _begin(handler, _SET)
    for start in range(0, len(_SET), size):
        handler.wfile.write(_SET[start : start + size])
        threading.Event().wait(_TIMEOUT_SECONDS * 2 / _PIECES)


@pytest.mark.parametrize(
    "bad",
    [_redirect, lambda handler: _send(handler, _TOO_LONG), _send_slowly],
    ids=["a redirect", "too long", "too slow"],
)
def test_what_is_no_plain_key_set_is_not_read(bad: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The set that follows is read."""
    monkeypatch.setattr(key_sets, "_TIMEOUT_SECONDS", _TIMEOUT_SECONDS)
    monkeypatch.setattr(key_sets, "_COOLDOWN_SECONDS", 0.05)
    answers = [bad]
    with _serving(answers) as (url, reads):
        keys = KeySet(url)
        keys.start()
        try:
            eventually(lambda: _refuses(keys) and len(reads) > 2)  # so the first two responses have been judged

            answers[:] = [_send]

            assert eventually(lambda: keys.find("one"))
        finally:
            keys.close()


def _refuses(keys: KeySet) -> bool:
    """Return True while no set has been read; it also asks for the next read."""
    with pytest.raises(Unavailable):
        keys.find("one")
    return True


def test_a_certificate_is_verified_by_the_ca_that_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With another one, or without, no key is read, and the log says what to do."""
    monkeypatch.setattr(key_sets, "_COOLDOWN_SECONDS", 0.05)
    authority, another = (Authority.load_or_create(tmp_path / name, name) for name in ("right", "another"))
    with _serving([_send], authority.issue("server").both_file) as (url, reads):
        for ca in (str(another.certificate_file), ""):
            with _reading(url, ca) as keys:
                eventually(lambda keys=keys: _refuses(keys) and "CERTIFICATE_VERIFY_FAILED" in caplog.text)  # type: ignore[misc]
            assert "set JWT_JWKS_CA to the CA that signed the certificate of JWT_JWKS_URL" in caplog.text
            caplog.clear()
        assert reads == []

        with _reading(url, str(authority.certificate_file)) as keys:
            assert eventually(lambda: keys.find("one"))


@contextmanager
def _reading(url: str, ca: str) -> Iterator[KeySet]:
    keys = KeySet(url, ca)
    keys.start()
    try:
        yield keys
    finally:
        keys.close()


@contextmanager
def _serving(answers: list[Answer], certificate: Path | None = None) -> Iterator[tuple[str, list[str]]]:
    """Serve the first of the answers; yield the URL and the paths that were requested."""
    reads: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            reads.append(self.path)
            with suppress(ConnectionError):  # the client does not wait for the rest
                answers[0](self)

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a handshake that the client ends
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"{'https' if certificate else 'http'}://127.0.0.1:{server.server_port}/keys", reads
    finally:
        server.shutdown()
        server.server_close()
