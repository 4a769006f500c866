"""What a write of the issuer will do: outcomes, held requests, dead letters, hand-offs."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from service.domain.coupon import Coupon
from service.domain.decide import Outcome
from service.domain.failures import Failure
from service.domain.record import RawRecord, Record
from service.domain.request import FINAL_STATES, LogPosition, ReasonCode, RequestState
from service.store import fault_injection
from service.store.checkpoints import CheckpointAdvance
from service.store.dead_letters import NewDeadLetter
from service.store.outbox import OffsetRange, OutboxKind
from service.store.write_probe import ProbedWrite


@dataclass(slots=True)
class IssueResult:
    """What a poll led to, for those who are told after the commit."""

    #: how many records were decided: all that were given, or the first of them
    record_count: int = 0
    #: next offset by partition, as committed
    next_offsets: dict[int, int] = field(default_factory=dict)
    #: requests that are held, to be retried
    held: list[LogPosition] = field(default_factory=list)
    #: hand-offs that wait for Celery
    outbox_kinds: set[OutboxKind] = field(default_factory=set)
    #: a dead letter waits to be forwarded
    has_dead_letters: bool = False
    #: number of requests by state and code
    counts: Counter[tuple[RequestState, ReasonCode | None]] = field(default_factory=Counter)

    def merge(self, later: "IssueResult") -> None:
        """Joins a later poll to this one."""
        self.next_offsets.update(later.next_offsets)
        self.held += later.held
        self.outbox_kinds |= later.outbox_kinds
        self.has_dead_letters = self.has_dead_letters or later.has_dead_letters
        self.counts.update(later.counts)


@dataclass(slots=True)
class WritePlan:
    """The decisions about some records of a poll, before they are written; one that is written can be told."""

    records: Sequence[Record]
    coupons: Mapping[int, Coupon]
    outcomes: list[Outcome]
    #: of requests that are known to fail by themselves, by request id
    failing: Mapping[str, Failure]
    held: list[tuple[RawRecord, Failure]] = field(init=False)
    dead: list[NewDeadLetter] = field(init=False)

    def __post_init__(self) -> None:
        holding = self._of(RequestState.RETRYING) if self.failing else []
        self.held = [(one.raw, self.failing[one.request.request_id]) for one in holding if one.request]
        self.dead = [
            new_dead_letter(record, record.poison, ReasonCode.POISON) for record in self.records if record.poison
        ]

    def fail(self, failure: Failure) -> None:
        """Turns the plan for a single record into one that survives its failure: it is dead, unless it holds a seat."""
        (record,), (outcome,) = self.records, self.outcomes
        if not self.held:
            self.outcomes = [Outcome(outcome.request, RequestState.DEAD, ReasonCode.POISON)]
            self.dead = [new_dead_letter(record, failure, ReasonCode.POISON)]

    def trials(self, log_id: int) -> list[ProbedWrite]:
        """The requests that are to be issued, to be tried one by one."""
        fault = {record.raw.log_position: _fault(record) for record in self.records}
        issued = (outcome for outcome in self.outcomes if outcome.state is RequestState.ISSUED)
        return [
            ProbedWrite(log_id, outcome, is_new=True, fault=fault[outcome.request.log_position]) for outcome in issued
        ]

    def faults(self) -> Iterable[str | None]:
        """The faults on demand of the requests that are to be issued."""
        if not any(record.fault for record in self.records):
            return ()
        return map(_fault, self._of(RequestState.ISSUED))

    def standby(self) -> list[RawRecord]:
        """The records of requests that wait for a seat."""
        return [record.raw for record in self._of(RequestState.STANDBY)]

    def _of(self, state: RequestState) -> list[Record]:
        places = {outcome.request.log_position for outcome in self.outcomes if outcome.state is state}
        return [record for record in self.records if record.raw.log_position in places] if places else []

    def tell(self, done: IssueResult, *, notices: bool) -> None:
        """Adds what was written to what is told after the commit."""
        done.held += [raw.log_position for raw, _ in self.held]
        done.outbox_kinds |= outbox_kinds_for(self.outcomes, self.coupons, notices=notices)
        done.has_dead_letters = done.has_dead_letters or bool(self.dead)
        done.counts.update((outcome.state, outcome.code) for outcome in self.outcomes)


def outbox_kinds_for(outcomes: Sequence[Outcome], coupons: Mapping[int, Coupon], *, notices: bool) -> set[OutboxKind]:
    """Notices for what is final; the gate hears of seats that come back and of coupons that are gone."""
    verdicts = {(outcome.state, outcome.code) for outcome in outcomes}
    kinds = set()
    if notices and any(state in FINAL_STATES for state, _ in verdicts):
        kinds.add(OutboxKind.NOTIFY)
    if any(frees_seat(state, code) for state, code in verdicts) or _last_issued(outcomes, coupons):
        kinds.add(OutboxKind.GATE)
    return kinds


def _last_issued(outcomes: Sequence[Outcome], coupons: Mapping[int, Coupon]) -> bool:
    """Whether some coupon's last one is among them."""
    issued = {outcome.request.coupon_id: outcome.sequence for outcome in outcomes if outcome.sequence}
    return any(sequence >= coupons[coupon_id].quantity for coupon_id, sequence in issued.items())


def frees_seat(state: RequestState, code: ReasonCode | None) -> bool:
    """Whether the gate's seat of a request comes back: on dead, and on refused for any reason but sold_out."""
    return state is RequestState.DEAD or (state is RequestState.REFUSED and code is not ReasonCode.SOLD_OUT)


def _fault(record: Record) -> str | None:
    """The fault on demand of a first attempt."""
    return fault_injection.raise_statement(record.fault, 1)


def new_dead_letter(record: Record, failure: Failure, code: ReasonCode) -> NewDeadLetter:
    """A record that is given up at its first attempt."""
    return NewDeadLetter(record.raw, record.request, code, 1, str(failure), failure)


def checkpoint_advances(records: Sequence[Record], positions: Mapping[int, int]) -> list[CheckpointAdvance]:
    """Each partition's step past the last of its records."""
    last = {record.raw.log_position.partition: record.raw for record in records}
    return [
        # records of the very millisecond of the last one may still follow it
        CheckpointAdvance(partition, positions[partition], raw.log_position.offset + 1, raw.appended_at_ms - 1)
        for partition, raw in sorted(last.items())
    ]


def offset_ranges(moves: Sequence[CheckpointAdvance]) -> list[OffsetRange]:
    """The offsets of a poll, by partition."""
    return [OffsetRange(move.partition, move.expected_offset, move.next_offset - 1) for move in moves]
