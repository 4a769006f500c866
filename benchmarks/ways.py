"""The ways to be a consumer group that are compared, each as patient as the issuer."""

from typing import Any, NamedTuple

from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

_TIMEOUT_SECONDS = 10.0
_SESSION_MS = 6_000
HEARTBEAT_MS = 2_000


class Way(NamedTuple):
    """A name, what its members are told, and whether each has a static id."""

    name: str
    settings: dict[str, Any]
    static: bool


_CLASSIC = {"session.timeout.ms": _SESSION_MS, "heartbeat.interval.ms": HEARTBEAT_MS}
_EAGER = {**_CLASSIC, "partition.assignment.strategy": "range"}
_COOPERATIVE = {**_CLASSIC, "partition.assignment.strategy": "cooperative-sticky"}
_ATTENTIVE = {**_COOPERATIVE, "heartbeat.interval.ms": 500}
_KIP_848 = {"group.protocol": "consumer"}

WAYS = (
    Way("eager", _EAGER, static=False),
    Way("cooperative", _COOPERATIVE, static=False),
    Way("cooperative, static", _COOPERATIVE, static=True),
    Way("the same, heartbeat 0.5 s", _ATTENTIVE, static=True),
    Way("KIP-848", _KIP_848, static=False),
    Way("KIP-848, static", _KIP_848, static=True),
)

_KEPT_BY_THE_BROKER = {
    "consumer.session.timeout.ms": _SESSION_MS,
    "consumer.heartbeat.interval.ms": HEARTBEAT_MS,
    "consumer.assignment.interval.ms": 0,  # the local stack does not delay the classic groups' first one either
}


def prepare(bootstrap_servers: str, group: str) -> None:
    """Tells the broker how patient a KIP-848 group is: its members cannot."""
    entries = [
        ConfigEntry(name, str(value), incremental_operation=AlterConfigOpType.SET)
        for name, value in _KEPT_BY_THE_BROKER.items()
    ]
    resource = ConfigResource(ResourceType.GROUP, group, incremental_configs=entries)
    admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})
    admin.incremental_alter_configs([resource])[resource].result(_TIMEOUT_SECONDS)


def member(bootstrap_servers: str, group: str, way: Way) -> dict[str, Any]:
    """The settings of a member, whose successor begins where it was a tenth of a second ago."""
    return {
        "bootstrap.servers": bootstrap_servers,
        "group.id": group,
        "auto.commit.interval.ms": 100,
        "auto.offset.reset": "latest",
        "fetch.wait.max.ms": 100,
        **way.settings,
    }
