"""Every setting, read from the environment once, checked at start, all faults told at once."""

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
    """What a process is told from outside; a field's upper-case name is its environment variable."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)

    kafka_bootstrap_servers: str = Field(min_length=1, description="Kafka brokers, host:port separated by commas")
    database_url: str = Field(description="PostgreSQL, the truth: postgresql://user@host:port/database")
    redis_url: str = Field(description="Redis or Valkey for the gate: redis://host:port/database")
    celery_broker_url: str = Field(
        min_length=1,
        description="Celery's broker: redis://host:port/database, not the gate's; or confluentkafka://host:port",
    )
    request_id_keys: SecretStr = Field(
        description="keys of the request ids' MAC, separated by commas: the first signs, all of them verify"
    )

    topic_partitions: int = Field(6, ge=1, le=1000, description="partitions of ISSUE_COUPON and of its dead letters")
    topic_replication: int = Field(1, ge=1, le=9, description="replicas of each partition")
    topic_min_insync_replicas: int = Field(1, ge=1, le=9, description="replicas that must hold a record before its ack")

    bind_beyond_loopback: bool = Field(
        False, description="allow api_host and issuer_host to be reached from other machines, without authentication"
    )
    api_host: str = Field("127.0.0.1", description="address the API binds to")
    api_port: int = Field(8000, ge=1, le=65535, description="port the API binds to")
    api_processes: int = Field(1, ge=1, le=64, description="processes of the API that share its port")
    issuer_host: str = Field("127.0.0.1", description="address of the issuer's own readiness and metrics")
    issuer_port: int = Field(8001, ge=1, le=65535, description="port of the issuer's own readiness and metrics")

    issuer_instance: str = Field("", description="static member id in group coupon, unique per issuer; empty: none")
    poll_records: int = Field(4000, ge=1, le=100_000, description="most records the issuer decides in one transaction")
    produce_timeout_ms: int = Field(5000, ge=100, le=60_000, description="time a record has to reach the log")

    webhook_url: str = Field("", pattern=r"^(https?://.+)?$", description="where notices go; empty: none are made")
    webhook_secret: SecretStr = Field(
        SecretStr(""), validate_default=True, description="key of the notices' signature, whsec_ + base64"
    )

    dead_letters_per_minute: int = Field(
        10, ge=1, le=1_000_000, description="when more requests than that die in a minute, an alert is raised"
    )

    fault_injection: bool = Field(False, description="obey the Fault header of requests: demos and tests only")
    crash_points: str = Field("", description="folder that arms crash points and makes the clock jump: tests only")
    clock_offset_ms: int = Field(0, description="shifts this process's clock: tests only")
    log_format: Literal["json", "console"] = Field("console", description="one JSON object a line, or for eyes")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least severe level logged")

    @field_validator("database_url")
    @classmethod
    def _is_postgresql(cls, url: str) -> str:
        if not url.startswith(("postgresql://", "postgresql+psycopg://")):
            raise ValueError("must begin with postgresql://")
        return _checked(url, PostgresDsn)

    @field_validator("redis_url")
    @classmethod
    def _is_redis(cls, url: str) -> str:
        return _checked(url, RedisDsn)

    @field_validator("celery_broker_url")
    @classmethod
    def _is_a_broker(cls, url: str, others: ValidationInfo) -> str:
        if KAFKA_BROKER_PATTERN.fullmatch(url):
            return url
        if not url.startswith(("redis://", "rediss://")):
            raise ValueError("must be redis://host:port/1, rediss://host:port/1 or confluentkafka://host:port")
        if _database(_checked(url, RedisDsn)) == _database(others.data.get("redis_url", "")):
            raise ValueError("is REDIS_URL: emptying one would empty the other; use another database number")
        return url

    @field_validator("request_id_keys")
    @classmethod
    def _are_long_enough(cls, keys: SecretStr) -> SecretStr:
        if any(len(key) < MIN_SECRET_BYTES for key in _split(keys)):
            raise ValueError(f"a key has less than {MIN_SECRET_BYTES} bytes")
        return keys

    @field_validator("topic_min_insync_replicas")
    @classmethod
    def _can_be_acknowledged(cls, replicas: int, others: ValidationInfo) -> int:
        if replicas > others.data.get("topic_replication", replicas):
            raise ValueError("is above TOPIC_REPLICATION: nothing could ever be acknowledged")
        return replicas

    @field_validator("api_host", "issuer_host")
    @classmethod
    def _stays_on_loopback(cls, host: str, others: ValidationInfo) -> str:
        if not others.data.get("bind_beyond_loopback") and not _is_loopback(host):
            raise ValueError(
                f"{host} is not loopback and there is no authentication: set BIND_BEYOND_LOOPBACK=true to mean it"
            )
        return host

    @field_validator("issuer_port")
    @classmethod
    def _is_not_the_apis(cls, port: int, others: ValidationInfo) -> int:
        if (others.data.get("issuer_host"), port) == (others.data.get("api_host"), others.data.get("api_port")):
            raise ValueError("is API_PORT: both cannot listen there")
        return port

    @field_validator("webhook_secret")
    @classmethod
    def _signs(cls, secret: SecretStr, others: ValidationInfo) -> SecretStr:
        if others.data.get("webhook_url") and not WEBHOOK_SECRET_PATTERN.fullmatch(secret.get_secret_value()):
            raise ValueError("WEBHOOK_URL needs it to sign notices: whsec_ and at least 24 random bytes in base64")
        return secret

    @field_validator("crash_points", "clock_offset_ms")
    @classmethod
    def _is_for_tests(cls, value: str | int, others: ValidationInfo) -> str | int:
        if value and not others.data.get("fault_injection"):
            raise ValueError("is for tests: FAULT_INJECTION=true must be set with it")
        return value

    @property
    def celery_over_kafka(self) -> bool:
        """Whether Kafka is Celery's broker, and not Redis."""
        return bool(KAFKA_BROKER_PATTERN.fullmatch(self.celery_broker_url))

    @property
    def mac_keys(self) -> tuple[bytes, ...]:
        """The keys of the request ids' MAC, signing key first."""
        return _split(self.request_id_keys)


def load() -> Settings:
    """Reads the environment; raises Misconfigured naming every setting that is absent, malformed or contradictory."""
    try:
        return Settings()
    except ValidationError as error:
        raise Misconfigured([_told(fault["loc"], fault["msg"]) for fault in error.errors()]) from None


def _told(location: tuple[int | str, ...], message: str) -> str:
    return ": ".join([*(str(part).upper() for part in location), message.removeprefix("Value error, ")])


def _split(keys: SecretStr) -> tuple[bytes, ...]:
    return tuple(key.strip().encode() for key in keys.get_secret_value().split(","))


def _checked(url: str, kind: type[PostgresDsn] | type[RedisDsn]) -> str:
    try:
        TypeAdapter(kind).validate_python(url)
    except ValidationError as error:
        raise ValueError(error.errors()[0]["msg"]) from None
    return url


def _database(url: str) -> tuple[str, str]:
    """A server and its database number, in whatever spelling: none is number 0."""
    parts = urlsplit(url)
    return parts.netloc.rpartition("@")[2], parts.path.strip("/") or "0"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
