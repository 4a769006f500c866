"""The public keys of the tokens' issuer: a JSON Web Key Set (RFC 7517), read again and again."""

import ssl
import threading
import time
from typing import Any

import httpx
from jwt import PyJWK, PyJWKSet

from service.background_thread import BackgroundThread
from service.domain.errors import Unavailable
from service.log import get_logger
from service.log_events import LogEvent

_log = get_logger(__name__)
#: the issuer's new key is known after this time, or after the first token that names it
_INTERVAL_SECONDS = 30.0
#: shortest time between two reads, whatever key ids callers invent
_COOLDOWN_SECONDS = 5.0
_TIMEOUT_SECONDS = 5.0
_MAX_BYTES = 1_000_000


class KeySet(BackgroundThread):
    """Reads the key set in a thread of its own: a slow issuer delays no request. The last good set is kept."""

    def __init__(self, url: str, ca: str = "") -> None:
        """`url` is JWT_JWKS_URL; empty: there are no public keys, and the thread has nothing to do.

        `ca` is JWT_JWKS_CA, the file with the CAs that are trusted; empty: those of httpx.
        """
        super().__init__("key set")
        self._url = url
        self._verify: ssl.SSLContext | bool = ssl.create_default_context(cafile=ca) if ca else True
        self._keys: dict[str, PyJWK] | None = None
        self._wanted = threading.Event()

    def find(self, key_id: str) -> PyJWK | None:
        """Return the key, or None; raise Unavailable while no set has been read yet."""
        keys = self._keys
        if keys is None:
            self._wanted.set()
            raise Unavailable("The key set", "it has not been read yet")
        if key_id not in keys:
            self._wanted.set()
        return keys.get(key_id)

    def run(self) -> None:
        """Work until the thread is closed."""
        options: dict[str, Any] = {"timeout": _TIMEOUT_SECONDS, "follow_redirects": False, "trust_env": False}
        with httpx.Client(verify=self._verify, **options) as client:
            while self._url and not self._stopping.is_set():
                self._wanted.clear()
                try:
                    self._keys = _read(client, self._url)
                except Exception as error:  # noqa: BLE001  # whatever the response is, the next one may be a key set
                    _log.warning(LogEvent.KEY_SET_NOT_READ, reason=_explain(error))
                # a key that is not known brings the next read forward, but not without a cooldown
                self._stopping.wait(_COOLDOWN_SECONDS)
                self._wanted.wait(_INTERVAL_SECONDS - _COOLDOWN_SECONDS)

    def close(self) -> None:
        """Stop after the read in progress."""
        self._stopping.set()
        self._wanted.set()
        super().close()


def _explain(error: Exception) -> str:
    """Return the error, and what to do about a certificate that no trusted CA has signed."""
    reason = repr(error)
    if "unable to get local issuer certificate" in reason or "self-signed certificate" in reason:
        reason += ": set JWT_JWKS_CA to the CA that signed the certificate of JWT_JWKS_URL"
    return reason


def _read(client: httpx.Client, url: str) -> dict[str, PyJWK]:
    """Return the keys by id; raise an exception of any type if the response is no key set."""
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    body = b""
    with client.stream("GET", url) as response:
        if response.status_code != httpx.codes.OK:
            raise ValueError(f"the response has status {response.status_code}")
        for part in response.iter_bytes():
            body += part
            if len(body) > _MAX_BYTES or time.monotonic() > deadline:
                raise ValueError("the response is too long or too slow")
    keys = PyJWKSet.from_json(body.decode())
    return {key.key_id: key for key in keys if key.key_id and key.public_key_use in (None, "sig")}
