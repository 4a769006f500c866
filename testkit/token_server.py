"""A token endpoint, as an OpenID provider has one: it gives tokens to clients with their secret."""

import base64
import json
import ssl
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Self
from urllib.parse import parse_qs, unquote


class TokenServer:
    """Answers grants of client credentials, until the `with` block ends."""

    def __init__(self, secrets: Mapping[str, str], sign: Callable[[str], str], certificate: Path | None = None) -> None:
        """`secrets` has the secret of each client; `sign` returns the token of a client.

        `certificate` is a file with a certificate and its key, for TLS.
        """
        #: the scope that each grant was asked for; None: without a scope
        self.scopes: list[str | None] = []
        token_server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                token_server.scopes.append(form.get("scope", [None])[0])
                scheme, _, encoded = self.headers.get("Authorization", "").partition(" ")
                login = base64.b64decode(encoded).decode() if scheme == "Basic" else ":"
                client, _, secret = (unquote(part) for part in login.partition(":"))
                valid = form.get("grant_type") == ["client_credentials"] and secrets.get(client) == secret
                answer = {"access_token": sign(client), "token_type": "Bearer", "expires_in": 300} if valid else {}
                body = json.dumps(answer or {"error": "invalid_client"}).encode()
                self.send_response(200 if valid else 401)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Print nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a handshake that the client ends
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"{'https' if certificate else 'http'}://127.0.0.1:{self._server.server_port}/token"

    def __enter__(self) -> Self:
        Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._server.server_close()
