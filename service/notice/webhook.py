"""Signed webhooks by the Standard Webhooks specification (webhook-id, webhook-timestamp, webhook-signature)."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import httpx
import msgspec
from standardwebhooks import Webhook

from service.domain.errors import Unavailable
from service.store.requests import Answer

#: to be reached, and to take the body
_STEP_SECONDS = 0.5
_TYPE = "issuance.decided"


class Sender:
    """Posts notices to one receiver and never follows it elsewhere."""

    def __init__(self, url: str, secret: str, answer_seconds: float) -> None:
        self._url = url
        self._signer = Webhook(secret)
        self._client = httpx.Client(timeout=httpx.Timeout(_STEP_SECONDS, read=answer_seconds), follow_redirects=False)

    def send(self, notice_id: str, answers: Sequence[Answer]) -> None:
        """Posts decisions under an id that stays the same in every repeat; raises Unavailable unless answered 2xx."""
        at = datetime.now(UTC)
        body = msgspec.json.encode({"type": _TYPE, "timestamp": at, "data": [_event(answer) for answer in answers]})
        headers = {
            "content-type": "application/json",
            "webhook-id": notice_id,
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": self._signer.sign(notice_id, at, body.decode()),
        }
        try:
            answer = self._client.post(self._url, content=body, headers=headers)
        except httpx.HTTPError as error:
            raise Unavailable("the webhook's receiver", f"{type(error).__name__}: {error}") from error
        if not answer.is_success:
            raise Unavailable("the webhook's receiver", f"it answered {answer.status_code}")

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()


def _event(answer: Answer) -> dict[str, Any]:
    request = answer.request
    return {
        "request_id": request.request_id,
        "coupon_id": request.coupon_id,
        "user_id": request.user_id,
        "state": answer.state,
        "code": answer.code,
        "sequence": answer.sequence,
        "decided_at": answer.decided_at_ms and datetime.fromtimestamp(answer.decided_at_ms / 1000, UTC),
    }
