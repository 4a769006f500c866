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
from service.webhooks import failure_text
from service.webhooks.circuit_breaker import CircuitBreaker

_PART = "the webhook's receiver"
_TYPE = "issuance.decided"
#: reading a short response body to its end keeps the connection
_MAX_BODY_BYTES = 65_536
#: of a body that says why a POST is not accepted, so much is looked at
_MAX_TEXT_BYTES = 1_000
#: a shorter part of the receiver's URL is no token
_MIN_TOKEN_LENGTH = 6


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
        on_attempt: Callable[[WebhookOutcome, str | None], object] = lambda _outcome, _failure: None,
    ) -> None:
        """`on_attempt` is called with the outcome of each POST, and with why it was not accepted."""
        self._url = url
        self._secrets = secrets_of(url, secret)
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
            "accept-encoding": "identity",  # so that a short answer can be read as it is
            "webhook-id": delivery_id,
            "webhook-timestamp": str(int(sent_at.timestamp())),
            "webhook-signature": self._signer.sign(delivery_id, sent_at, body.decode()),
        }
        try:
            with tracing.post(self._url) as traced:
                response, text = self._runner.run(self._post(body, {**headers, **traced.headers}))
                traced.on_response(response.status_code)
        except (httpx.HTTPError, TimeoutError) as error:
            self.circuit_breaker.record_failure()
            failure = failure_text.error_text(error, self._timeout_seconds)
            self._on_attempt(WebhookOutcome.UNREACHABLE, failure)
            raise Unavailable(_PART, failure) from error
        if not response.is_success:
            # Retry-After counts where it is a number of seconds (RFC 9110, section 10.2.3); a date is not supported
            retry_after = response.headers.get("retry-after", "")
            is_seconds = retry_after.isascii() and retry_after.isdigit()
            self.circuit_breaker.record_failure(float(retry_after) if is_seconds else 0.0)
            failure = failure_text.answer_text(response, text, self._secrets)
            self._on_attempt(WebhookOutcome.REJECTED, failure)
            raise Unavailable(_PART, failure)
        self.circuit_breaker.record_success()
        self._on_attempt(WebhookOutcome.ACCEPTED, None)
        return response.status_code

    async def _post(self, body: bytes, headers: dict[str, str]) -> tuple[httpx.Response, bytes]:
        """Return the response, and the beginning of its body."""
        async with (
            asyncio.timeout(self._timeout_seconds),
            self._client.stream("POST", self._url, content=body, headers=headers) as response,
        ):
            read, text = 0, b""
            async for chunk in response.aiter_raw():
                text += chunk[: _MAX_TEXT_BYTES - len(text)]
                read += len(chunk)
                if read > _MAX_BODY_BYTES:
                    break
            return response, b"" if "content-encoding" in response.headers else text

    def close(self) -> None:
        """Close the connections."""
        self._runner.run(self._client.aclose())
        self._runner.close()


def secrets_of(url: str, secret: str) -> tuple[str, ...]:
    """Return what a receiver may repeat in its answer and nobody else may see: the key, and a token in its own URL.

    Any segment of the path and any value of the query may be a token, if it is not too short for one.
    """
    parsed = httpx.URL(url)
    target = parsed.raw_path.decode("ascii")
    path, _, query = target.partition("?")
    values = [value for _, value in parsed.params.multi_items()]
    raw_values = [pair.partition("=")[2] for pair in query.split("&")]
    parts = [*path.split("/"), *parsed.path.split("/"), *values, *raw_values]
    found = {secret, secret.removeprefix("whsec_"), target, path, parsed.path, query, parsed.password}
    found |= {part for part in parts if len(part) >= _MIN_TOKEN_LENGTH}
    return tuple(sorted(found - {"", "/"}, key=len, reverse=True))  # the longest first: one can be a part of another
