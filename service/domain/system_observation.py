"""What a process sees of the whole system at one moment, and what it has seen lately."""

from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise, takewhile
from typing import NamedTuple

#: what an issuer published longer ago may no longer be so: it publishes every two seconds
FRESH_HEALTH_SECONDS = 5.0
#: beat sends the sweep every second; one that ran longer ago is late
MAX_SWEEP_AGE_SECONDS = 7.0


class Part(StrEnum):
    """The servers that the system needs, by the label `part` of metrics."""

    POSTGRESQL = "postgresql"
    REDIS = "redis"
    KAFKA = "kafka"
    BROKER = "broker"


class IssuerObservation(NamedTuple):
    """What an issuer published about itself last."""

    #: since it did so
    age_seconds: float
    #: since its loop began its present iteration, when it did so
    iteration_age_seconds: float
    #: sum and number of the writes of batches, since the process began
    write_seconds: float
    writes: float
    #: why it is not ready
    reasons: tuple[str, ...] = ()

    @property
    def is_fresh(self) -> bool:
        """Whether it still publishes."""
        return self.age_seconds <= FRESH_HEALTH_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """The state of the system at one moment. What is None or absent is not known."""

    #: monotonic seconds
    observed_at: float
    #: whether the part answers reads
    available: Mapping[Part, bool]
    #: whether the part does what accepts need
    ready: Mapping[Part, bool]
    #: the part's own error
    reasons: Mapping[Part, str] = field(default_factory=dict)
    database_read_seconds: float | None = None
    #: None: Redis does not answer
    issuers: Sequence[IssuerObservation] | None = None
    #: connections of issuers to PostgreSQL: those of an issuer that has ended are closed
    issuer_connections: float | None = None
    #: by partition: since every record that is older has been decided
    undecided_age_seconds: Mapping[str, float] = field(default_factory=dict)
    #: None: the sweep has not run in the last minute, or never
    sweep_age_seconds: float | None = None
    #: messages in the queue from which workers take the sweep
    maintenance_messages: float | None = None
    #: by outcome, since the start of counting
    webhook_attempts: Mapping[str, float] = field(default_factory=dict)
    #: why the last POST that failed was not accepted, in words; None: not known
    webhook_failure: str | None = None
    #: how long the oldest row has waited, by kind of work
    work_age_seconds: Mapping[str, float] = field(default_factory=dict)
    #: reasons of the alerts that the service finds in the database, by name
    service_alerts: Mapping[str, str] = field(default_factory=dict)
    proof_ok: bool | None = None
    proof_age_seconds: float = 0.0
    #: answers to requests for coupons by code, of all processes that share the port, since they began
    responses: Mapping[str, float] = field(default_factory=dict)


class History:
    """Counts of the last minutes, and when each fault was last present."""

    def __init__(self, kept_seconds: float) -> None:
        self._kept_seconds = kept_seconds
        self._observations: deque[Observation] = deque()
        self._last_present: dict[str, float] = {}

    def add(self, observation: Observation) -> None:
        """Keep an observation, and forget those that are older than `kept_seconds`."""
        self._observations.append(observation)
        while self._observations[0].observed_at < observation.observed_at - self._kept_seconds:
            self._observations.popleft()

    def mark_present(self, fault: str) -> None:
        """Note that the last observation has the fault."""
        self._last_present[fault] = self._observations[-1].observed_at

    def was_present(self, faults: Collection[str], within_seconds: float) -> bool:
        """Return whether one of the faults was present in the last seconds, or is now."""
        oldest = self._observations[-1].observed_at - within_seconds
        return any(self._last_present.get(fault, oldest - 1) >= oldest for fault in faults)

    def last(self, seconds: float) -> Iterator[Observation]:
        """Return the observations of the last seconds, the latest first."""
        oldest = self._observations[-1].observed_at - seconds
        return takewhile(lambda observation: observation.observed_at >= oldest, reversed(self._observations))

    def increase(self, count: Callable[[Observation], float | None], within_seconds: float) -> float:
        """Return by how much a count has grown in the last seconds. A count that falls has begun again at 0."""
        counts = [count(observation) for observation in self.last(within_seconds)]
        known = [each for each in reversed(counts) if each is not None]
        return sum(map(_growth, known, known[1:]))

    def increase_since(
        self, count: Callable[[Observation], float | None], other: Callable[[Observation], float | None]
    ) -> float:
        """Return by how much a count has grown since another one grew last, as far as observations are kept."""
        counts = [(count(observation), other(observation)) for observation in self._observations]
        known = [(each, others) for each, others in counts if each is not None and others is not None]
        grown = 0.0
        for (earlier, others_earlier), (later, others_later) in pairwise(known):
            grown = 0.0 if _growth(others_earlier, others_later) else grown + _growth(earlier, later)
        return grown


def _growth(earlier: float, later: float) -> float:
    """Return by how much a count has grown; one that is less than before has begun again at 0."""
    return later - earlier if later >= earlier else later
