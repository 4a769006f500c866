"""All settings: read from the environment once, checked at start, with every fault reported at once."""

import ipaddress
import re
from typing import Literal
from urllib.parse import urlsplit

from pydantic import (
    Field,
    PostgresDsn,
    RedisDsn,
    SecretStr,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.domain.errors import Misconfigured

MIN_SECRET_BYTES = 16
WEBHOOK_SECRET_PATTERN = re.compile(r"whsec_[A-Za-z0-9+/]{32,}={0,2}")
KAFKA_BROKER_PATTERN = re.compile(r"confluentkafka://[^/?#@,;:]+:[0-9]{1,5}")


class Settings(BaseSettings):
    """The settings of a process; the environment variable of a field is its name in upper case."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)

    kafka_bootstrap_servers: str = Field(min_length=1, description="Kafka brokers: host:port, separated by commas")
    database_url: str = Field(
        description="PostgreSQL: postgresql://user@host:port/database; only a server that accepts writes is used,"
        " unless the URL sets target_session_attrs"
    )
    redis_url: str = Field(description="Redis or Valkey for the gate: redis://host:port/database")
    celery_broker_url: str = Field(
        min_length=1,
        description="Celery's broker: redis://host:port/database with another database than the gate's,"
        " or confluentkafka://host:port",
    )
    request_id_keys: SecretStr = Field(
        description="keys of the MAC in request ids, separated by commas: the first one signs, all of them verify"
    )

    topic_partitions: int = Field(6, ge=1, le=1000, description="partitions of ISSUE_COUPON and ISSUE_COUPON.dlt")
    topic_replication: int = Field(1, ge=1, le=9, description="replicas of each partition")
    topic_min_insync_replicas: int = Field(
        1, ge=1, le=9, description="replicas that must have a record before it is acknowledged"
    )

    bind_beyond_loopback: bool = Field(
        False,
        description="allow API_HOST and ISSUER_HOST to accept connections from other machines, without authentication",
    )
    api_host: str = Field("127.0.0.1", description="address the API binds to")
    api_port: int = Field(8000, ge=1, le=65535, description="port the API binds to")
    api_processes: int = Field(1, ge=1, le=64, description="API processes that share the port")
    issuer_host: str = Field("127.0.0.1", description="address of the issuer's /readyz and /metrics")
    issuer_port: int = Field(8001, ge=1, le=65535, description="port of the issuer's /readyz and /metrics")

    issuer_instance: str = Field(
        "", description="static member id in the consumer group, unique per issuer; empty: none"
    )
    poll_records: int = Field(
        4000, ge=1, le=100_000, description="most records that the issuer decides in one batch (transaction)"
    )
    produce_timeout_ms: int = Field(
        5000, ge=100, le=60_000, description="milliseconds in which the broker must acknowledge a record"
    )

    webhook_url: str = Field(
        "", pattern=r"^(https?://.+)?$", description="URL that receives notices; empty: no notices"
    )
    webhook_secret: SecretStr = Field(
        SecretStr(""), validate_default=True, description="key that signs notices: whsec_ and base64"
    )

    dead_letters_per_minute: int = Field(
        10, ge=1, le=1_000_000, description="dead letters in one minute above which an alert is raised"
    )
    undecided_alert_seconds: int = Field(
        10, ge=5, le=86_400, description="age of a partition's oldest undecided record above which an alert is raised"
    )

    fault_injection: bool = Field(False, description="apply the Fault header of requests: demos and tests only")
    crash_points: str = Field("", description="folder whose files arm crash points and shift the clock: tests only")
    clock_offset_ms: int = Field(
        0, description="milliseconds by which the clock of this process is shifted: tests only"
    )
    log_format: Literal["json", "console"] = Field(
        "console", description="json: one object a line; console: readable text"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="lowest level that is logged")

    @field_validator("database_url")
    @classmethod
    def _is_postgresql(cls, url: str) -> str:
        if not url.startswith(("postgresql://", "postgresql+psycopg://")):
            raise ValueError("must begin with postgresql://")
        return _require_url(url, PostgresDsn)

    @field_validator("redis_url")
    @classmethod
    def _is_redis(cls, url: str) -> str:
        return _require_url(url, RedisDsn)

    @field_validator("celery_broker_url")
    @classmethod
    def _is_supported_broker(cls, url: str, info: ValidationInfo) -> str:
        if KAFKA_BROKER_PATTERN.fullmatch(url):
            return url
        if not url.startswith(("redis://", "rediss://")):
            raise ValueError("must be redis://host:port/1, rediss://host:port/1 or confluentkafka://host:port")
        if _redis_database(_require_url(url, RedisDsn)) == _redis_database(info.data.get("redis_url", "")):
            raise ValueError(
                "must not name the database of REDIS_URL, because emptying one would empty the other:"
                " use another database number"
            )
        return url

    @field_validator("request_id_keys")
    @classmethod
    def _has_long_keys(cls, keys: SecretStr) -> SecretStr:
        if any(len(key) < MIN_SECRET_BYTES for key in _split_keys(keys)):
            raise ValueError(f"each key must have at least {MIN_SECRET_BYTES} bytes")
        return keys

    @field_validator("topic_min_insync_replicas")
    @classmethod
    def _is_at_most_replication(cls, replicas: int, info: ValidationInfo) -> int:
        if replicas > info.data.get("topic_replication", replicas):
            raise ValueError("must not exceed TOPIC_REPLICATION: no record could be acknowledged")
        return replicas

    @field_validator("api_host", "issuer_host")
    @classmethod
    def _stays_on_loopback(cls, host: str, info: ValidationInfo) -> str:
        if not info.data.get("bind_beyond_loopback") and not _is_loopback(host):
            raise ValueError(
                f"{host} is not a loopback address and the service has no authentication:"
                " set BIND_BEYOND_LOOPBACK=true to accept connections from other machines"
            )
        return host

    @field_validator("issuer_port")
    @classmethod
    def _differs_from_api_port(cls, port: int, info: ValidationInfo) -> int:
        if (info.data.get("issuer_host"), port) == (info.data.get("api_host"), info.data.get("api_port")):
            raise ValueError("must differ from API_PORT: both would listen on the same address")
        return port

    @field_validator("webhook_secret")
    @classmethod
    def _has_signing_key(cls, secret: SecretStr, info: ValidationInfo) -> SecretStr:
        if info.data.get("webhook_url") and not WEBHOOK_SECRET_PATTERN.fullmatch(secret.get_secret_value()):
            raise ValueError(
                "is required by WEBHOOK_URL to sign notices: whsec_ and at least 24 random bytes in base64"
            )
        return secret

    @field_validator("crash_points", "clock_offset_ms")
    @classmethod
    def _needs_fault_injection(cls, value: str | int, info: ValidationInfo) -> str | int:
        if value and not info.data.get("fault_injection"):
            raise ValueError("is for tests only: set FAULT_INJECTION=true with it")
        return value

    @property
    def celery_over_kafka(self) -> bool:
        """Whether Celery's broker is Kafka and not Redis."""
        return bool(KAFKA_BROKER_PATTERN.fullmatch(self.celery_broker_url))

    @property
    def mac_keys(self) -> tuple[bytes, ...]:
        """The keys of the MAC in request ids, the signing key first."""
        return _split_keys(self.request_id_keys)


def load() -> Settings:
    """Read the environment; raise Misconfigured with every setting that is absent, malformed or contradictory."""
    try:
        return Settings()
    except ValidationError as error:
        faults = [
            ": ".join([*(str(part).upper() for part in fault["loc"]), fault["msg"].removeprefix("Value error, ")])
            for fault in error.errors()
        ]
        raise Misconfigured(faults) from None


def _split_keys(keys: SecretStr) -> tuple[bytes, ...]:
    return tuple(key.strip().encode() for key in keys.get_secret_value().split(","))


def _require_url(url: str, kind: type[PostgresDsn] | type[RedisDsn]) -> str:
    try:
        TypeAdapter(kind).validate_python(url)
    except ValidationError as error:
        raise ValueError(error.errors()[0]["msg"]) from None
    return url


def _redis_database(url: str) -> tuple[str, str]:
    """Return host and database number of a Redis URL; a URL without a number means database 0."""
    parts = urlsplit(url)
    return parts.netloc.rpartition("@")[2], parts.path.strip("/") or "0"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
