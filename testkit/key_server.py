"""An HTTP server of public keys, as the issuer of users' tokens has one."""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any, Self

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

_ALGORITHMS = {rsa.RSAPrivateKey: "RS256", ec.EllipticCurvePrivateKey: "ES256", ed25519.Ed25519PrivateKey: "EdDSA"}


class KeyServer:
    """Serves public keys as a JSON Web Key Set, until the `with` block ends."""

    def __init__(self) -> None:
        self.keys: list[dict[str, Any]] = []
        #: how many times the set was requested
        self.reads = 0
        #: while it is cleared, requests are not answered
        self.answering = Event()
        self.answering.set()
        #: sent in place of the keys
        self.body = b""
        key_server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                key_server.reads += 1
                key_server.answering.wait()
                body = key_server.body or json.dumps({"keys": key_server.keys}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Print nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/keys"

    def __enter__(self) -> Self:
        Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.answering.set()
        self._server.shutdown()
        self._server.server_close()

    def add(self, key_id: str, private_key: Any) -> None:
        """Publish the public key of a private one."""
        public = json.loads(jwt.get_algorithm_by_name(algorithm_of(private_key)).to_jwk(private_key.public_key()))
        self.keys.append({**public, "kid": key_id, "use": "sig"})


def algorithm_of(private_key: Any) -> str:
    """Return the name of the algorithm with which a private key signs tokens."""
    return next(name for kind, name in _ALGORITHMS.items() if isinstance(private_key, kind))
