"""Signed webhooks by the Standard Webhooks specification (webhook-id, webhook-timestamp, webhook-signature)."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

import httpx
import msgspec
from standardwebhooks import Webhook

from service.domain.errors import Unavailable
from service.domain.request import Decision
from service.webhooks.circuit_breaker import CircuitBreaker

_PART = "the webhook's receiver"
_TYPE = "issuance.decided"
#: of an answer's body nothing is needed; reading it keeps the connection
_BODY_BYTES_MOST = 65_536


class WebhookSender:
    """Posts notices to one receiver, never follows it elsewhere, and leaves it alone for a while after a failure."""

    def __init__(self, url: str, secret: str, timeout_seconds: float) -> None:
        self._url = url
        self._signer = Webhook(secret)
        self._within_seconds = timeout_seconds
        self._runner = asyncio.Runner()
        self._client = httpx.AsyncClient(timeout=timeout_seconds, follow_redirects=False)
        self.circuit_breaker = CircuitBreaker()

    def send(self, notice_id: str, decisions: Sequence[Decision]) -> None:
        """Posts decisions under an id that stays the same in every repeat; raises Unavailable unless answered 2xx.

        Connecting, sending and the whole answer together take no longer than was said, however slowly it dribbles.
        """
        at = datetime.now(UTC)
        body = msgspec.json.encode({"type": _TYPE, "timestamp": at, "data": decisions})
        headers = {
            "content-type": "application/json",
            "webhook-id": notice_id,
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": self._signer.sign(notice_id, at, body.decode()),
        }
        try:
            answer = self._runner.run(self._post(body, headers))
        except (httpx.HTTPError, TimeoutError) as error:
            self.circuit_breaker.record_failure()
            raise Unavailable(_PART, f"{type(error).__name__}: {error}") from error
        if not answer.is_success:
            self.circuit_breaker.record_failure(_asked_seconds(answer))
            raise Unavailable(_PART, f"it answered {answer.status_code}")
        self.circuit_breaker.record_success()

    async def _post(self, body: bytes, headers: dict[str, str]) -> httpx.Response:
        async with (
            asyncio.timeout(self._within_seconds),
            self._client.stream("POST", self._url, content=body, headers=headers) as answer,
        ):
            read = 0
            async for chunk in answer.aiter_raw():
                read += len(chunk)
                if read > _BODY_BYTES_MOST:
                    break
            return answer

    def close(self) -> None:
        """Closes the connections."""
        self._runner.run(self._client.aclose())
        self._runner.close()


def _asked_seconds(answer: httpx.Response) -> float:
    """The Retry-After of an answer, where it is a number of seconds (RFC 9110, section 10.2.3)."""
    asked = answer.headers.get("retry-after", "")
    return float(asked) if asked.isascii() and asked.isdigit() else 0.0
