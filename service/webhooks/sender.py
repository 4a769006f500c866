"""Signed webhooks by the Standard Webhooks specification (webhook-id, webhook-timestamp, webhook-signature)."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from enum import StrEnum

import httpx
import msgspec
from standardwebhooks import Webhook

from service import tracing
from service.domain.errors import Unavailable
from service.domain.request import Decision
from service.webhooks.circuit_breaker import CircuitBreaker

_PART = "the webhook's receiver"
_TYPE = "issuance.decided"
#: the response body is not used; reading a short one to its end keeps the connection
_MAX_BODY_BYTES = 65_536


class WebhookOutcome(StrEnum):
    """What became of a POST."""

    #: answered with 2xx
    ACCEPTED = "accepted"
    #: answered with another status
    REJECTED = "rejected"
    #: not answered in time
    UNREACHABLE = "unreachable"


class WebhookSender:
    """Posts notices to one receiver, without following redirects; its circuit breaker counts failures."""

    def __init__(
        self,
        url: str,
        secret: str,
        timeout_seconds: float,
        on_attempt: Callable[[WebhookOutcome], object] = lambda _: None,
    ) -> None:
        """`on_attempt` is called with the outcome of each POST."""
        self._url = url
        self._signer = Webhook(secret)
        self._timeout_seconds = timeout_seconds
        self._runner = asyncio.Runner()
        self._client = httpx.AsyncClient(timeout=timeout_seconds, follow_redirects=False)
        self.circuit_breaker = CircuitBreaker()
        self._on_attempt = on_attempt

    def send(self, delivery_id: str, decisions: Sequence[Decision]) -> int:
        """Post decisions and return the status of the response; raises Unavailable unless it is 2xx.

        `delivery_id` is sent as webhook-id: it must be the same each time these decisions are sent. The timeout covers
        connecting, sending and reading the whole response, however slowly it arrives.
        """
        sent_at = datetime.now(UTC)
        body = msgspec.json.encode({"type": _TYPE, "timestamp": sent_at, "data": decisions})
        headers = {
            "content-type": "application/json",
            "webhook-id": delivery_id,
            "webhook-timestamp": str(int(sent_at.timestamp())),
            "webhook-signature": self._signer.sign(delivery_id, sent_at, body.decode()),
        }
        try:
            with tracing.post(self._url) as traced:
                response = self._runner.run(self._post(body, {**headers, **traced.headers}))
                traced.on_response(response.status_code)
        except (httpx.HTTPError, TimeoutError) as error:
            self.circuit_breaker.record_failure()
            self._on_attempt(WebhookOutcome.UNREACHABLE)
            raise Unavailable(_PART, f"{type(error).__name__}: {error}") from error
        if not response.is_success:
            # Retry-After counts where it is a number of seconds (RFC 9110, section 10.2.3); a date is not supported
            retry_after = response.headers.get("retry-after", "")
            is_seconds = retry_after.isascii() and retry_after.isdigit()
            self.circuit_breaker.record_failure(float(retry_after) if is_seconds else 0.0)
            self._on_attempt(WebhookOutcome.REJECTED)
            raise Unavailable(_PART, f"it answered {response.status_code}")
        self.circuit_breaker.record_success()
        self._on_attempt(WebhookOutcome.ACCEPTED)
        return response.status_code

    async def _post(self, body: bytes, headers: dict[str, str]) -> httpx.Response:
        async with (
            asyncio.timeout(self._timeout_seconds),
            self._client.stream("POST", self._url, content=body, headers=headers) as response,
        ):
            read = 0
            async for chunk in response.aiter_raw():
                read += len(chunk)
                if read > _MAX_BODY_BYTES:
                    break
            return response

    def close(self) -> None:
        """Close the connections."""
        self._runner.run(self._client.aclose())
        self._runner.close()
