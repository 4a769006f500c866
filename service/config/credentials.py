"""What signs and verifies request ids, tickets and users' tokens."""

from pydantic import BaseModel, Field, SecretStr, ValidationInfo, field_validator

from service.config.connection_urls import check_http_url
from service.config.parsing import is_loopback, split_keys, split_list
from service.config.tls_files import check_ca

#: RFC 7518, section 3.2: a key of HS256 is at least as long as its hash
MIN_JWT_BYTES = 32


class CredentialSettings(BaseModel):
    """Keys of request ids and tickets, and what a user's token must state."""

    request_id_keys: SecretStr = Field(
        description="keys of the MAC in request ids, separated by commas: the first one signs, all of them verify;"
        " docs/key-rotation.md says how to change them"
    )
    jwt_issuer: str = Field("", description="`iss` of users' tokens; empty: no tokens are accepted")
    jwt_audience: str = Field("", validate_default=True, description="`aud` that users' tokens must contain")
    jwt_algorithms: str = Field(
        "", validate_default=True, description="algorithms of users' tokens: HS256, or some of RS256,ES256,EdDSA"
    )
    jwt_secret: SecretStr = Field(
        SecretStr(""), validate_default=True, description="the key of HS256, at least 32 bytes"
    )
    jwt_jwks_url: str = Field(
        "", validate_default=True, description="https URL of the public keys (a JSON Web Key Set)"
    )
    jwt_jwks_ca: str = Field(
        "", description="PEM file with the CA of JWT_JWKS_URL's certificate; empty: the public CAs that browsers trust"
    )
    jwt_user_claim: str = Field("sub", min_length=1, description="claim that holds the user's id, an integer as text")
    jwt_leeway_seconds: int = Field(
        5, ge=0, le=300, description="difference between the clocks of the API and of those that issue tokens"
    )
    jwt_require_nbf: bool = Field(
        True, description="refuse tokens without `nbf`; false for issuers that do not send it: with it, it is checked"
    )
    ticket_keys: SecretStr = Field(
        SecretStr(""),
        validate_default=True,
        description="keys of the MAC in tickets, separated by commas: the first one signs, all of them verify",
    )
    ticket_seconds: int = Field(3600, ge=10, le=86_400, description="longest life of a ticket")

    @field_validator("request_id_keys")
    @classmethod
    def _has_long_keys(cls, keys: SecretStr) -> SecretStr:
        split_keys(keys)
        return keys

    @field_validator("ticket_keys")
    @classmethod
    def _has_long_keys_or_none(cls, keys: SecretStr) -> SecretStr:
        if keys.get_secret_value():
            split_keys(keys)
        return keys

    @field_validator("jwt_algorithms")
    @classmethod
    def _are_compatible(cls, algorithms: str) -> str:
        """A public key must never be taken for the secret of HS256: so they are not mixed."""
        chosen = set(split_list(algorithms))
        if not (chosen <= {"HS256"} or chosen <= {"RS256", "ES256", "EdDSA"}):
            raise ValueError("must be HS256, or some of RS256, ES256 and EdDSA")
        return ",".join(sorted(chosen))

    @field_validator("jwt_jwks_url")
    @classmethod
    def _is_safe_url(cls, url: str) -> str:
        if not url:
            return url
        parts = check_http_url(url)
        if parts.username is not None:
            raise ValueError("must not have a user name or a password")
        if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
            raise ValueError("must begin with https://")
        return url

    @field_validator("jwt_jwks_ca")
    @classmethod
    def _is_ca_of_keys(cls, path: str, info: ValidationInfo) -> str:
        if path and info.data.get("jwt_jwks_url") == "":
            raise ValueError("has no effect without JWT_JWKS_URL")
        if path:
            check_ca(path)
        return path

    @field_validator("jwt_audience", "jwt_algorithms", "jwt_secret", "jwt_jwks_url", "ticket_keys")
    @classmethod
    def _is_set_if_needed(cls, value: str | SecretStr, info: ValidationInfo) -> str | SecretStr:
        """Tokens need their issuer, their audience and a key to verify them; who has a token may want a ticket."""
        algorithms = info.data.get("jwt_algorithms", "")
        needed = {
            "jwt_secret": algorithms == "HS256",
            "jwt_jwks_url": bool(algorithms) and algorithms != "HS256",
        }
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        if info.data.get("jwt_issuer") and needed.get(str(info.field_name), True) and not text:
            raise ValueError("is needed by JWT_ISSUER")
        if info.field_name == "jwt_secret" and text and len(text.encode()) < MIN_JWT_BYTES:
            raise ValueError(f"must have at least {MIN_JWT_BYTES} bytes")
        return value

    @property
    def mac_keys(self) -> tuple[bytes, ...]:
        """The keys of the MAC in request ids, the signing key first."""
        return split_keys(self.request_id_keys)

    @property
    def ticket_mac_keys(self) -> tuple[bytes, ...]:
        """The keys of the MAC in tickets, the signing key first."""
        return split_keys(self.ticket_keys) if self.ticket_keys.get_secret_value() else ()

    @property
    def token_algorithms(self) -> tuple[str, ...]:
        """The algorithms of users' tokens."""
        return split_list(self.jwt_algorithms)
