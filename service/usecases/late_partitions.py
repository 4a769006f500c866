"""Asks Kafka who holds partitions that are late, and why they are."""

from collections.abc import Mapping

from service.config import Settings
from service.domain.errors import Unavailable
from service.store.checkpoints import PartitionProgress
from service.stream import log_reader
from service.stream.partition_holders import GroupReader, Holder, partition_ends
from service.stream.topics import Group, Topic

#: who holds a partition, and why it is late
Explanation = tuple[Holder | None, str]


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
            return dict.fromkeys(late, (None, f"its holder is unknown: {error}"))
        found: dict[int, Explanation] = {}
        for at in late:
            holder = holders.by_partition.get(at)
            if holder is None:
                state = "is rebalancing" if holders.rebalancing else "has no issuer for it: start one"
                found[at] = None, f"held by nobody: group `{Group.ISSUER}` {state}"
                continue
            other = "which is not an issuer of this service: stop it or change its group"
            meaning = slow.get(at, "see its /readyz") if holder.is_issuer else other
            held = f"held by client {holder.client_id!r} at {holder.host!r} (member {holder.member_id!r})"
            found[at] = holder, f"{held}, {meaning}"
        return found

    def _explain_issuers(self, partitions: list[int], progress: Mapping[int, PartitionProgress]) -> dict[int, str]:
        """Return why issuers are late with their partitions: an open transaction, or their number of records."""
        next_offsets = {at: checkpoint.next_offset for at in partitions if (checkpoint := progress[at].checkpoint)}
        ends = partition_ends(self._settings, next_offsets) if next_offsets else {}
        # From the last stable offset on, consumers get no record before the open transaction there ends.
        hiding = {at: end for at, end in ends.items() if end.last_stable_offset < end.end_offset}
        ranges = {at: (next_offsets[at], end.last_stable_offset) for at, end in hiding.items()}
        hidden = log_reader.without_records(self._settings, Topic.ISSUE_COUPON, ranges)
        return {
            at: f"an open transaction of another producer hides the records from offset {end.last_stable_offset} on:"
            " end it, or wait for its timeout"
            if at in hidden
            else f"{end.end_offset - next_offsets[at]} records behind: if that does not decrease, see its /readyz"
            for at, end in ends.items()
        }
