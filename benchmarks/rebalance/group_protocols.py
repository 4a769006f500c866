"""The group protocols that are compared, each with the issuer's session timeout."""

from typing import Any, NamedTuple

from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

HEARTBEAT_MS = 2_000
_TIMEOUT_SECONDS = 10.0
_SESSION_MS = 6_000


class GroupProtocol(NamedTuple):
    """A name, the settings of the members, and whether each member has a static id."""

    name: str
    settings: dict[str, Any]
    static: bool


_CLASSIC = {"session.timeout.ms": _SESSION_MS, "heartbeat.interval.ms": HEARTBEAT_MS}
_EAGER = {**_CLASSIC, "partition.assignment.strategy": "range"}
_COOPERATIVE = {**_CLASSIC, "partition.assignment.strategy": "cooperative-sticky"}
_SHORT_HEARTBEAT = {**_COOPERATIVE, "heartbeat.interval.ms": 500}
_KIP_848 = {"group.protocol": "consumer"}

PROTOCOLS = (
    GroupProtocol("eager", _EAGER, static=False),
    GroupProtocol("cooperative", _COOPERATIVE, static=False),
    GroupProtocol("cooperative, static", _COOPERATIVE, static=True),
    GroupProtocol("cooperative, static, heartbeat 0.5 s", _SHORT_HEARTBEAT, static=True),
    GroupProtocol("KIP-848", _KIP_848, static=False),
    GroupProtocol("KIP-848, static", _KIP_848, static=True),
)

_BROKER_SETTINGS = {
    "consumer.session.timeout.ms": _SESSION_MS,
    "consumer.heartbeat.interval.ms": HEARTBEAT_MS,
    "consumer.assignment.interval.ms": 0,  # the local stack does not delay a classic group's first assignment either
}


def configure_broker(bootstrap_servers: str, group: str) -> None:
    """Set the timeouts of a KIP-848 group in the broker; its members cannot set them."""
    entries = [
        ConfigEntry(name, str(value), incremental_operation=AlterConfigOpType.SET)
        for name, value in _BROKER_SETTINGS.items()
    ]
    resource = ConfigResource(ResourceType.GROUP, group, incremental_configs=entries)
    admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})
    admin.incremental_alter_configs([resource])[resource].result(_TIMEOUT_SECONDS)


def member_settings(bootstrap_servers: str, group: str, protocol: GroupProtocol) -> dict[str, Any]:
    """Return a member's settings. Offsets are committed every 0.1 s, so that the next reader repeats few records."""
    return {
        "bootstrap.servers": bootstrap_servers,
        "group.id": group,
        "auto.commit.interval.ms": 100,
        "auto.offset.reset": "latest",
        "fetch.wait.max.ms": 100,
        **protocol.settings,
    }
