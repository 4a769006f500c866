"""Asks Kafka what keeps a partition from being decided: who holds it in the issuers' group, and open transactions."""

from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from functools import cached_property
from typing import Any, NamedTuple

from confluent_kafka import ConsumerGroupState, IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from service.config import Settings
from service.domain.errors import Unavailable
from service.stream.clients import ISSUER_CLIENT_ID_PREFIX, client_id
from service.stream.errors import mapped_errors
from service.stream.topics import Group, Topic

#: all questions are asked at once
_TIMEOUT_SECONDS = 1.0
_REBALANCING = (ConsumerGroupState.PREPARING_REBALANCING, ConsumerGroupState.COMPLETING_REBALANCING)


class Holder(NamedTuple):
    """The group member to which a partition is assigned. Its texts come from the client: print them escaped."""

    client_id: str
    host: str
    member_id: str

    @property
    def is_issuer(self) -> bool:
        """Whether the member is an issuer of this service."""
        return self.client_id.startswith(ISSUER_CLIENT_ID_PREFIX)


class PartitionEnds(NamedTuple):
    """Where a partition ends: for consumers of committed records (the last stable offset), and in the log."""

    last_stable_offset: int
    end_offset: int


class KafkaView(NamedTuple):
    """Kafka's view of some partitions: who holds them, and the ends of those whose leader answers."""

    rebalancing: bool
    holders: Mapping[int, Holder]
    ends: Mapping[int, PartitionEnds]


class PartitionHolders:
    """Queries group `coupon` and the end offsets; the client is built at the first query."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def query(self, partitions: Iterable[int]) -> KafkaView:
        """Return Kafka's view of the partitions; raise Unavailable when the group's coordinator does not answer."""
        asked = [TopicPartition(Topic.ISSUE_COUPON, partition) for partition in partitions]
        with mapped_errors():
            group = self._admin.describe_consumer_groups([Group.ISSUER], request_timeout=_TIMEOUT_SECONDS)
            stable = self._list_ends(asked, IsolationLevel.READ_COMMITTED)
            ends = self._list_ends(asked, IsolationLevel.READ_UNCOMMITTED)
            rebalancing, holders = _members(group[Group.ISSUER])
        found: dict[int, PartitionEnds] = {}
        for at in asked:
            with suppress(Unavailable), mapped_errors():  # the others' leaders may answer
                found[at.partition] = PartitionEnds(_offset(stable[at]), _offset(ends[at]))
        return KafkaView(rebalancing, holders, found)

    @cached_property
    def _admin(self) -> AdminClient:
        return AdminClient(
            {
                "bootstrap.servers": self._settings.kafka_bootstrap_servers,
                "client.id": client_id("holders"),
                "log_level": 0,
            }
        )

    def _list_ends(self, asked: list[TopicPartition], isolation: IsolationLevel) -> Mapping[Any, Future[Any]]:
        latest: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        return self._admin.list_offsets(
            dict.fromkeys(asked, latest), isolation_level=isolation, request_timeout=_TIMEOUT_SECONDS
        )


def _members(described: Future[Any]) -> tuple[bool, dict[int, Holder]]:
    """Return whether the group is rebalancing, and the holder of each partition."""
    try:
        group = described.result(_TIMEOUT_SECONDS)
    except KafkaException as error:
        if error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
            return False, {}
        raise
    holders = {
        at.partition: Holder(member.client_id, member.host, member.member_id)
        for member in group.members
        for at in member.assignment.topic_partitions
        if at.topic == Topic.ISSUE_COUPON
    }
    return group.state in _REBALANCING, holders


def _offset(listed: Future[Any]) -> int:
    return int(listed.result(_TIMEOUT_SECONDS).offset)
