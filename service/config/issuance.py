"""How requests are accepted, decided and announced to the webhook receiver."""

import re
from typing import Literal

from pydantic import BaseModel, Field, SecretStr, ValidationInfo, field_validator
from standardwebhooks import Webhook

from service.config.connection_urls import check_http_url

_WEBHOOK_SECRET = re.compile(r"whsec_[A-Za-z0-9+/]{32,}={0,2}")


class IssuanceSettings(BaseModel):
    """Limits and timeouts of the API, the gate and the issuer, and where notices go."""

    max_undecided: int = Field(
        1_000_000,
        ge=0,
        le=1_000_000_000,
        description="undecided records above which a request gets 503 and no seat; 0: no ceiling",
    )
    gate_keep_seconds: int = Field(
        86_400,
        ge=60,
        le=31_536_000,
        description="seconds for which the gate keeps the users of a coupon that is closed or sold out",
    )
    produce_timeout_ms: int = Field(
        5000, ge=100, le=60_000, description="milliseconds in which the broker must acknowledge a record"
    )
    foreign_records: Literal["issue", "refuse"] = Field(
        "issue",
        description="issue: records of other producers are requests; refuse: only records with a request id of this"
        " service are, and the others are refused with the code `foreign`",
    )
    request_id_in: Literal["header", "value", "both"] = Field(
        "header",
        description="where the API writes the request id of a record; every process reads all three. `value` costs less"
        " CPU time: set it when no process of a release before this setting reads the topic",
    )
    issuer_instance: str = Field(
        "", description="static member id in the consumer group, unique per issuer; empty: none"
    )
    poll_records: int = Field(
        4000, ge=1, le=100_000, description="most records that the issuer decides in one batch (transaction)"
    )
    webhook_url: str = Field("", description="URL that receives notices; empty: no notices")
    webhook_secret: SecretStr = Field(
        SecretStr(""), validate_default=True, description="key that signs notices: whsec_ and base64"
    )

    @field_validator("webhook_url")
    @classmethod
    def _is_http(cls, url: str) -> str:
        if url:
            check_http_url(url)
        return url

    @field_validator("webhook_secret")
    @classmethod
    def _has_signing_key(cls, secret: SecretStr, info: ValidationInfo) -> SecretStr:
        if info.data.get("webhook_url") and not _can_sign(secret.get_secret_value()):
            raise ValueError(
                "is required by WEBHOOK_URL to sign notices: whsec_ and at least 24 random bytes in base64"
            )
        return secret


def _can_sign(secret: str) -> bool:
    """Return whether the key is long enough and the library that signs takes it."""
    if not _WEBHOOK_SECRET.fullmatch(secret):  # the library ignores characters that are not base64
        return False
    try:
        Webhook(secret)
    except ValueError:
        return False
    return True
