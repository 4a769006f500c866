"""The servers that a process connects to, and the topics that it creates."""

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, Field, ValidationInfo, field_validator

from service.config import redis_url
from service.config.connection_urls import check_postgresql_url, check_redis_broker_url, check_redis_url
from service.config.parsing import split_list

_ADDRESS = re.compile(r"(?:\[[0-9a-fA-F:.]+\]|[^\s,:/?#@\[\]]+)(?::(?P<port>[0-9]{1,5}))?", re.ASCII)
KAFKA_BROKER_PATTERN = re.compile(r"confluentkafka://[^/?#@,;:]+:[0-9]{1,5}")


class ServerSettings(BaseModel):
    """Addresses of Kafka, PostgreSQL, Redis and Celery's broker, and the size of the topics."""

    kafka_bootstrap_servers: str = Field(min_length=1, description="Kafka brokers: host:port, separated by commas")
    database_url: Annotated[str, AfterValidator(check_postgresql_url)] = Field(
        description="PostgreSQL: postgresql://user@host:port/database; only a server that accepts writes is used,"
        " unless the URL sets target_session_attrs"
    )
    migrate_database_url: str = Field(
        "",
        description="PostgreSQL for `coupons migrate`, as the role that owns the schema; it grants the role of"
        " DATABASE_URL what the service needs; empty: DATABASE_URL",
    )
    database_pooler: bool = Field(
        False,
        description="true: DATABASE_URL leads to a connection pooler such as PgBouncer, in whichever mode; each"
        " transaction sets its timeouts itself, and statements are not prepared",
    )
    database_prepare: bool | None = Field(
        None,
        description="prepare repeated statements: empty: unless DATABASE_POOLER=true; true needs a pooler that keeps"
        " prepared statements (PgBouncer 1.22 or newer with max_prepared_statements above 0)",
    )
    redis_url: Annotated[str, AfterValidator(check_redis_url)] = Field(
        description="Redis or Valkey for the gate: redis://host:port/database, rediss:// with TLS; with Sentinel"
        " redis+sentinel://host:port,host:port/database?master_name=NAME"
    )
    celery_broker_url: str = Field(
        min_length=1,
        description="Celery's broker: a URL such as that of REDIS_URL with another database than the gate's, or"
        " confluentkafka://host:port",
    )
    topic_partitions: int = Field(6, ge=1, le=1000, description="partitions of ISSUE_COUPON and ISSUE_COUPON.dlt")
    topic_replication: int = Field(1, ge=1, le=9, description="replicas of each partition")
    topic_min_insync_replicas: int = Field(
        1, ge=1, le=9, description="replicas that must have a record before it is acknowledged"
    )

    @field_validator("kafka_bootstrap_servers")
    @classmethod
    def _are_addresses(cls, servers: str) -> str:
        if not split_list(servers) or not all(map(_is_address, split_list(servers))):
            raise ValueError("must be host:port, separated by commas, each without a scheme and without a user")
        return servers

    @field_validator("migrate_database_url")
    @classmethod
    def _can_grant(cls, url: str, info: ValidationInfo) -> str:
        if not url:
            return url
        if "database_url" in info.data and not urlsplit(info.data["database_url"]).username:
            raise ValueError("needs the name of a role in DATABASE_URL, to grant it what the service needs")
        return check_postgresql_url(url)

    @field_validator("celery_broker_url")
    @classmethod
    def _is_supported_broker(cls, url: str, info: ValidationInfo) -> str:
        if KAFKA_BROKER_PATTERN.fullmatch(url):
            return url
        if not url.startswith(redis_url.SCHEMES) and "sentinel" not in url.partition("://")[0]:
            supported = " or ".join(redis_url.SCHEMES)
            raise ValueError(f"must be confluentkafka://host:port, or begin with {supported}, in lower case")
        check_redis_broker_url(url)
        if "redis_url" in info.data and redis_url.parse(url).shares_database(redis_url.parse(info.data["redis_url"])):
            raise ValueError(
                "must not name the database of REDIS_URL, because emptying one would empty the other:"
                " use another database number"
            )
        return url

    @field_validator("topic_min_insync_replicas")
    @classmethod
    def _is_at_most_replication(cls, replicas: int, info: ValidationInfo) -> int:
        if replicas > info.data.get("topic_replication", replicas):
            raise ValueError("must not exceed TOPIC_REPLICATION: no record could be acknowledged")
        return replicas

    @property
    def prepares_statements(self) -> bool:
        """Whether statements that are repeated on a connection are prepared."""
        return not self.database_pooler if self.database_prepare is None else self.database_prepare

    @property
    def celery_over_kafka(self) -> bool:
        """Whether Celery's broker is Kafka and not Redis."""
        return bool(KAFKA_BROKER_PATTERN.fullmatch(self.celery_broker_url))


def _is_address(server: str) -> bool:
    match = _ADDRESS.fullmatch(server)
    return match is not None and int(match["port"] or "1") in range(1, 65_536)
