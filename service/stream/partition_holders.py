"""Asks Kafka what keeps a partition from being decided: who holds it in the issuers' group, and open transactions.

It uses the deprecated `list_groups`. With librdkafka 2.16, `describe_consumer_groups` once ended an issuer on a busy
machine with a failed assertion in the merge of its responses; librdkafka's issue 4605 describes a similar one. The
cause was not found.
"""

import struct
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, closing
from typing import Any, NamedTuple

from service.config import Settings
from service.domain.errors import Unavailable
from service.stream import clients, log_reader
from service.stream.clients import ISSUER_CLIENT_ID_PREFIX, client_id
from service.stream.connection import Admin
from service.stream.errors import mapped_errors
from service.stream.topics import Group, Topic

_TIMEOUT_SECONDS = 1.0
_REBALANCING = ("PreparingRebalance", "CompletingRebalance")
#: the broker's answer about a group that has members of another protocol (KIP-848)
_NOT_DESCRIBED = "Dead"


class Holder(NamedTuple):
    """The group member to which a partition is assigned. Its texts come from the client: print them escaped."""

    client_id: str
    host: str
    member_id: str

    @property
    def is_issuer(self) -> bool:
        """Whether the member is an issuer of this service."""
        return self.client_id.startswith(ISSUER_CLIENT_ID_PREFIX)


class Holders(NamedTuple):
    """The holders by partition; while the group is rebalancing, some have none."""

    by_partition: Mapping[int, Holder]
    rebalancing: bool


class PartitionEnds(NamedTuple):
    """Where a partition ends: for consumers of committed records (the last stable offset), and in the log."""

    last_stable_offset: int
    end_offset: int


class GroupReader:
    """Reads the members of group `coupon`; its client is built at the first call."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._admin: Admin | None = None

    def holders(self) -> Holders:
        """Return who holds which partition of the topic; raise Unavailable when Kafka does not say within a second."""
        if self._admin is None:
            self._admin = Admin(self._settings, **{"client.id": client_id("holders")})
        with mapped_errors(self._admin):
            groups = self._admin.list_groups(Group.ISSUER.value, timeout=_TIMEOUT_SECONDS)
        by_partition: dict[int, Holder] = {}
        for group in groups:
            if group.error or group.state == _NOT_DESCRIBED:
                raise Unavailable("Kafka", f"group {Group.ISSUER} is not described: {group.error or group.state}")
            for member in group.members:
                holder = Holder(str(member.client_id), str(member.client_host), str(member.id))
                by_partition |= dict.fromkeys(assigned_partitions(member.assignment), holder)
        return Holders(by_partition, any(group.state in _REBALANCING for group in groups))


def assigned_partitions(assignment: Any) -> list[int]:
    """Return the topic's partitions in a member's assignment; none if it has another form.

    The form is that of Kafka's consumer protocol: a version, then topics with partitions; integers are big endian.
    """
    found: list[int] = []
    try:
        _, topics = struct.unpack_from(">hi", assignment or b"\0" * 6)
        at = 6
        for _ in range(topics):
            (length,) = struct.unpack_from(">h", assignment, at)
            topic = assignment[at + 2 : at + 2 + length].decode()
            at += 2 + length
            (count,) = struct.unpack_from(">i", assignment, at)
            partitions = struct.unpack_from(f">{count}i", assignment, at + 4)
            found += partitions if topic == Topic.ISSUE_COUPON else ()
            at += 4 + 4 * count
    except (struct.error, UnicodeDecodeError):
        return []
    return found


def partition_ends(settings: Settings, partitions: Iterable[int]) -> dict[int, PartitionEnds]:
    """Return the ends of the partitions whose leader answers; raise Unavailable when no client can be built."""
    with ExitStack() as opened:
        with mapped_errors():
            committed = opened.enter_context(closing(clients.build_reader(settings)))
            uncommitted = opened.enter_context(closing(clients.build_offset_watcher(settings)))
        stable = log_reader.offset_ranges(committed, Topic.ISSUE_COUPON, partitions).ranges
        ends = log_reader.offset_ranges(uncommitted, Topic.ISSUE_COUPON, stable).ranges
        return {at: PartitionEnds(stable[at][1], end) for at, (_, end) in ends.items()}
