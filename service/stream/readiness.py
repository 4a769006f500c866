"""Checks with the broker's own data whether a record could be appended now, without a test record."""

from confluent_kafka.admin import AclOperation  # type: ignore[attr-defined]

from service.domain.errors import NotPermitted, Unavailable
from service.stream import topics
from service.stream.connection import Admin
from service.stream.errors import mapped_errors
from service.stream.topics import Topic

#: the API appends records, and reads the undecided ones when it fills the gate
_REQUIRED_OPERATIONS = frozenset({AclOperation.READ, AclOperation.WRITE})


class LogReadiness:
    """Describes the topic with a client of its own: leaders, in-sync replicas, permitted operations."""

    def __init__(self, admin: Admin, min_insync_replicas: int) -> None:
        self._admin = admin
        self._min_insync_replicas = min_insync_replicas

    def require_appendable(self, timeout_seconds: float) -> None:
        """Raise NotPermitted for a missing right, Unavailable for partitions that accept no record."""
        name = Topic.ISSUE_COUPON
        with mapped_errors(self._admin):
            topic = topics.request_description(self._admin, name, timeout_seconds, include_authorized_operations=True)
        # None: the broker does not report operations
        if topic.authorized_operations is not None and (
            missing := _REQUIRED_OPERATIONS.difference(topic.authorized_operations)
        ):
            rights = " and ".join(sorted(operation.name for operation in missing))
            raise NotPermitted("Kafka", f"{rights} on topic {name}")
        faults = []
        for partition in topic.partitions:
            if partition.leader is None or partition.leader.id < 0:
                faults.append(f"partition {partition.id} has no leader")
            elif len(partition.isr) < self._min_insync_replicas:
                faults.append(
                    f"partition {partition.id} has {len(partition.isr)} in-sync replicas,"
                    f" fewer than min.insync.replicas ({self._min_insync_replicas})"
                )
        if faults:
            raise Unavailable("Kafka", "; ".join(faults))
