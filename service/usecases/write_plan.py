"""What one write of the issuer contains: outcomes, held requests, dead letters, outbox entries."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from service.domain.coupon import Coupon
from service.domain.decide import Outcome
from service.domain.failures import UNVERIFIED, Failure
from service.domain.record import RawRecord, Record
from service.domain.request import FINAL_STATES, LogPosition, ReasonCode, RequestState
from service.store import write_probe
from service.store.checkpoints import CheckpointAdvance
from service.store.dead_letters import NewDeadLetter
from service.store.failed_attempts import FailedAttempt
from service.store.outbox import OffsetRange, OutboxKind
from service.store.write_probe import ProbedWrite


class HeldFailure(NamedTuple):
    """The coupon of a held request and why it failed; shown to operators, no decision depends on it."""

    coupon_id: int
    failure: Failure


@dataclass(slots=True)
class IssueResult:
    """What a batch led to, for the messages after its commit."""

    #: number of records decided, counted from the start of the batch
    record_count: int = 0
    #: next offset by partition, as committed
    next_offsets: dict[int, int] = field(default_factory=dict)
    #: requests that are held and will be retried
    held: list[LogPosition] = field(default_factory=list)
    #: what the description of their retry shows
    held_failures: dict[LogPosition, HeldFailure] = field(default_factory=dict)
    #: kinds of outbox entries that were written
    outbox_kinds: set[OutboxKind] = field(default_factory=set)
    #: a dead letter was written that has to be forwarded
    has_dead_letters: bool = False
    #: records that became dead letters because no key verified their request id
    unverified: list[LogPosition] = field(default_factory=list)
    #: number of requests by state and code
    counts: Counter[tuple[RequestState, ReasonCode | None]] = field(default_factory=Counter)
    #: the trace that the messages continue; empty: none
    traceparent: str = ""
    #: the batch was plain; the same batch has the same result either way
    plain: bool = field(default=False, compare=False)

    def merge(self, later: "IssueResult") -> None:
        """Add the result of a later batch."""
        self.next_offsets.update(later.next_offsets)
        self.held += later.held
        self.held_failures |= later.held_failures
        self.outbox_kinds |= later.outbox_kinds
        self.has_dead_letters = self.has_dead_letters or later.has_dead_letters
        self.counts.update(later.counts)
        self.traceparent = self.traceparent or later.traceparent


@dataclass(slots=True)
class WritePlan:
    """The decisions about some records of a batch before they are written."""

    records: Sequence[Record]
    coupons: Mapping[int, Coupon]
    outcomes: list[Outcome]
    #: why requests of this plan fail, by request id
    failing: Mapping[str, Failure]
    held: list[tuple[RawRecord, Failure]] = field(init=False)
    dead: list[NewDeadLetter] = field(init=False)

    def __post_init__(self) -> None:
        holding = self._records_in(RequestState.RETRYING) if self.failing else []
        self.held = [(record.raw, self.failing[record.request.request_id]) for record in holding if record.request]
        self.dead = [
            new_dead_letter(record, record.poison, ReasonCode.POISON) for record in self.records if record.poison
        ]

    @property
    def unverified(self) -> list[LogPosition]:
        """The records whose request id has this service's form and is not verified by a key."""
        return [dead.raw.log_position for dead in self.dead if dead.failure.error_type == UNVERIFIED]

    def failed_attempts(self) -> list[FailedAttempt]:
        """Return the failed first attempts of requests; a record that cannot be decoded is no attempt."""
        held = [FailedAttempt(raw.log_position, 1, failure) for raw, failure in self.held]
        return held + [
            FailedAttempt(one.raw.log_position, 1, one.failure, one.code) for one in self.dead if one.request
        ]

    def kill_unless_held(self, failure: Failure) -> None:
        """Make the single record of this plan a dead letter with this failure, unless the plan holds its seat."""
        (record,), (outcome,) = self.records, self.outcomes
        if not self.held:
            self.outcomes = [Outcome(outcome.request, RequestState.DEAD, ReasonCode.POISON)]
            self.dead = [new_dead_letter(record, failure, ReasonCode.POISON)]

    def probed_writes(self, log_id: int) -> list[ProbedWrite]:
        """Return the requests to be issued, for a probe that writes each alone."""
        faults = {record.log_position: _first_fault(record) for record in self.records}
        issued = (outcome for outcome in self.outcomes if outcome.state is RequestState.ISSUED)
        return [
            ProbedWrite(log_id, outcome, is_new=True, fault=faults[outcome.request.log_position]) for outcome in issued
        ]

    def injected_faults(self) -> Iterable[str | None]:
        """Return the statements that raise the injected faults of the requests to be issued."""
        if not any(record.fault for record in self.records):
            return ()
        return map(_first_fault, self._records_in(RequestState.ISSUED))

    def standby(self) -> list[RawRecord]:
        """Return the records of requests that wait for a seat."""
        return [record.raw for record in self._records_in(RequestState.STANDBY)]

    def _records_in(self, state: RequestState) -> list[Record]:
        log_positions = {outcome.request.log_position for outcome in self.outcomes if outcome.state is state}
        return [record for record in self.records if record.log_position in log_positions] if log_positions else []

    def add_to(self, result: IssueResult, *, notices: bool) -> None:
        """Add what this plan has written to the batch's result."""
        result.held += [raw.log_position for raw, _ in self.held]
        if self.held:
            retrying = (one.request for one in self.outcomes if one.state is RequestState.RETRYING)
            result.held_failures |= {
                request.log_position: HeldFailure(request.coupon_id, self.failing[request.request_id])
                for request in retrying
            }
        result.outbox_kinds |= outbox_kinds_for(self.outcomes, self.coupons, notices=notices)
        result.has_dead_letters = result.has_dead_letters or bool(self.dead)
        result.unverified += self.unverified
        result.counts.update((outcome.state, outcome.code) for outcome in self.outcomes)


def outbox_kinds_for(outcomes: Sequence[Outcome], coupons: Mapping[int, Coupon], *, notices: bool) -> set[OutboxKind]:
    """Return the kinds of outbox entries that follow from outcomes: notices if some are final, gate if seats change."""
    last_sequences = {outcome.request.coupon_id: outcome.sequence for outcome in outcomes if outcome.sequence}
    sold_out = any(sequence >= coupons[coupon_id].quantity for coupon_id, sequence in last_sequences.items())
    return outbox_kinds({(outcome.state, outcome.code) for outcome in outcomes}, sold_out=sold_out, notices=notices)


def outbox_kinds(
    results: Collection[tuple[RequestState, ReasonCode | None]], *, sold_out: bool, notices: bool
) -> set[OutboxKind]:
    """Return the kinds of outbox entries for these states and codes. sold_out: whether a last seat was issued."""
    kinds = set()
    if notices and any(state in FINAL_STATES for state, _ in results):
        kinds.add(OutboxKind.NOTIFY)
    if sold_out or any(releases_seat(state, code) for state, code in results):
        kinds.add(OutboxKind.GATE)
    return kinds


def releases_seat(state: RequestState, code: ReasonCode | None) -> bool:
    """Return whether the gate releases the seat of a request: on dead, and on refused for any reason but sold_out."""
    return state is RequestState.DEAD or (state is RequestState.REFUSED and code is not ReasonCode.SOLD_OUT)


def _first_fault(record: Record) -> str | None:
    """Return the statement that raises the record's injected fault in the first attempt."""
    return write_probe.raise_statement(record.fault, 1)


def new_dead_letter(record: Record, failure: Failure, code: ReasonCode) -> NewDeadLetter:
    """Return the dead letter of a record that becomes dead at its first attempt."""
    return NewDeadLetter(record.raw, record.request, code, 1, str(failure), failure)


def checkpoint_advances(records: Sequence[Record], next_offsets: Mapping[int, int]) -> list[CheckpointAdvance]:
    """Return for each partition the advance past the last of its records."""
    last = {record.partition: record for record in records}
    return [
        # one millisecond less, because more records with the last one's append time may follow
        CheckpointAdvance(partition, next_offsets[partition], record.offset + 1, record.appended_at_ms - 1)
        for partition, record in sorted(last.items())
    ]


def offset_ranges(advances: Sequence[CheckpointAdvance]) -> list[OffsetRange]:
    """Return the offsets of a batch by partition."""
    return [OffsetRange(advance.partition, advance.expected_offset, advance.next_offset - 1) for advance in advances]
