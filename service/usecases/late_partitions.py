"""Asks Kafka who holds partitions that are late, and why they are."""

from collections.abc import Mapping
from typing import NamedTuple

from service.config import Settings
from service.domain.errors import Unavailable
from service.store.checkpoints import PartitionProgress
from service.stream import log_reader
from service.stream.partition_holders import GroupReader, Holder, partition_ends
from service.stream.topics import Group, Topic


class Explanation(NamedTuple):
    """Why a partition is late."""

    #: the group member that holds it; None if nobody does or Kafka does not answer
    holder: Holder | None
    reason: str
    #: records that its issuer has to decide; None: not known
    behind: int | None = None


class LatePartitionExplainer:
    """Explains late partitions; it blocks until the brokers have answered."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._group = GroupReader(settings)

    def explain(self, late: list[int], progress: Mapping[int, PartitionProgress]) -> dict[int, Explanation]:
        """Return who holds each late partition, what that means, and what to do."""
        try:
            holders = self._group.holders()
            served = [at for at in late if at in holders.by_partition and holders.by_partition[at].is_issuer]
            slow = self._explain_issuers(served, progress)
        except Unavailable as error:
            return dict.fromkeys(late, Explanation(None, f"its holder is unknown: {error}"))
        found: dict[int, Explanation] = {}
        for at in late:
            holder = holders.by_partition.get(at)
            if holder is None:
                state = "is rebalancing" if holders.rebalancing else "has no issuer for it: start one"
                found[at] = Explanation(None, f"held by nobody: group `{Group.ISSUER}` {state}")
                continue
            other = "which is not an issuer of this service: stop it or change its group"
            meaning, behind = slow.get(at, ("see its /readyz", None)) if holder.is_issuer else (other, None)
            held = f"held by client {holder.client_id!r} at {holder.host!r} (member {holder.member_id!r})"
            found[at] = Explanation(holder, f"{held}, {meaning}", behind)
        return found

    def _explain_issuers(
        self, partitions: list[int], progress: Mapping[int, PartitionProgress]
    ) -> dict[int, tuple[str, int]]:
        """Return why issuers are late: an open transaction, or their number of records; and this number."""
        next_offsets = {at: checkpoint.next_offset for at in partitions if (checkpoint := progress[at].checkpoint)}
        ends = partition_ends(self._settings, next_offsets) if next_offsets else {}
        # From the last stable offset on, consumers get no record before the open transaction there ends.
        hiding = {at: end for at, end in ends.items() if end.last_stable_offset < end.end_offset}
        ranges = {at: (next_offsets[at], end.last_stable_offset) for at, end in hiding.items()}
        hidden = log_reader.without_records(self._settings, Topic.ISSUE_COUPON, ranges)
        found: dict[int, tuple[str, int]] = {}
        for at, end in ends.items():
            behind = end.end_offset - next_offsets[at]
            found[at] = (
                f"an open transaction of another producer hides the records from offset {end.last_stable_offset} on:"
                " end it, or wait for its timeout"
                if at in hidden
                else f"{behind} records behind: if that does not decrease, see its /readyz",
                behind,
            )
        return found
