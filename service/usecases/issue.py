"""Issues a batch: decides it in offset order and writes everything that follows in one transaction."""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta

from sqlalchemy import Connection, Engine

from service import crash_points
from service.crash_points import CrashPoint
from service.domain.decide import decide
from service.domain.errors import Fenced
from service.domain.failures import Failure, FailureClass
from service.domain.record import Record
from service.domain.retry import ISSUE_RETRY_POLICY
from service.store import (
    checkpoints,
    coupons,
    dead_letters,
    engine,
    failed_attempts,
    outbox,
    request_id_keys,
    requests,
    retries,
    write_probe,
)
from service.usecases.batch_bisect import (
    MAX_FAILURE_SECONDS,
    MAX_FAILURES_PER_TRANSACTION,
    Failures,
    write_bisecting,
)
from service.usecases.issue_plain import PlainIssuer
from service.usecases.key_register import KeyRegister
from service.usecases.write_plan import IssueResult, WritePlan, checkpoint_advances, offset_ranges


class Issuer:
    """Writes decisions. Between batches it keeps a connection for plain ones, and nothing that decides."""

    def __init__(
        self,
        engine: Engine,
        log_id: int,
        key_register: KeyRegister,
        *,
        notices: bool,
        refuse_foreign: bool = False,
        plain_batches: bool = True,
    ) -> None:
        """Create an issuer.

        notices: whether final decisions are delivered to a webhook. refuse_foreign: whether records without a request
        id of this service are refused. plain_batches: whether plain batches are written in two messages. They need a
        connection that keeps prepared statements and a timeout, which a connection pooler does not.
        """
        self._engine = engine
        self._log_id = log_id
        self._key_register = key_register
        self._notices = notices
        self._refuse_foreign = refuse_foreign
        self._plain = PlainIssuer(engine, log_id, notices=notices) if plain_batches else None

    def issue(
        self,
        records: Sequence[Record],
        next_offsets: Mapping[int, int],
        *,
        on_decided: Callable[[], None] = lambda: None,
    ) -> IssueResult:
        """Decide the records of a batch, which are in offset order within each partition, and commit.

        `next_offsets` is the next offset that the database is expected to have, by partition. A record that fails by
        itself is held or becomes a dead letter. After many of those the batch ends early: record_count of the result
        says how many records it covers. `on_decided` is called when the decisions are made and the thread waits for
        the database.

        A plain batch is written in two messages to the database (`PlainIssuer`), with the same result.

        Raises Fenced if a partition is not at its expected offset, KeyMissing if a record may be signed with a key that
        is missing here, and other system failures. A crash or an exception before the commit leaves nothing behind.
        """
        issued = self._plain.issue(records, next_offsets, on_decided) if self._plain else None
        return self.issue_any(records, next_offsets, on_decided=on_decided) if issued is None else issued

    def issue_any(
        self,
        records: Sequence[Record],
        next_offsets: Mapping[int, int],
        *,
        on_decided: Callable[[], None] = lambda: None,
    ) -> IssueResult:
        """Do what `issue` does, in the way in which any batch can be written: one statement after the other."""
        partitions = {record.partition for record in records}
        with self._engine.begin() as tx:
            expected = {partition: next_offsets[partition] for partition in partitions}
            if fenced := checkpoints.lock_expected(tx, self._log_id, expected):
                raise Fenced(fenced)
            crash_points.reach(CrashPoint.ISSUER_LOCKED)
            batch = _BatchTransaction(
                tx,
                self._log_id,
                self._key_register,
                records,
                on_decided,
                notices=self._notices,
                refuse_foreign=self._refuse_foreign,
            )
            count = write_bisecting(
                records,
                batch.write,
                batch.write_failed,
                batch.find_failing,
                max_failures=MAX_FAILURES_PER_TRANSACTION,
                max_seconds=MAX_FAILURE_SECONDS,
            )
            advances = checkpoint_advances(records[:count], next_offsets)
            checkpoints.advance(tx, self._log_id, advances)
            outbox.insert(tx, self._log_id, batch.result.outbox_kinds, offset_ranges(advances), batch.decided_at)
            crash_points.reach(CrashPoint.ISSUER_WRITTEN)
        crash_points.reach(CrashPoint.ISSUER_COMMITTED)
        batch.result.record_count = count
        batch.result.next_offsets = {advance.partition: advance.next_offset for advance in advances}
        return batch.result


class _BatchTransaction:
    """The transaction of a batch. It locks all coupons at once, in id order."""

    def __init__(
        self,
        tx: Connection,
        log_id: int,
        key_register: KeyRegister,
        records: Sequence[Record],
        on_decided: Callable[[], None],
        *,
        notices: bool,
        refuse_foreign: bool,
    ) -> None:
        self._tx = tx
        self._log_id = log_id
        self._key_register = key_register
        self._on_decided = on_decided
        self._notices = notices
        self._refuse_foreign = refuse_foreign
        self._coupons = coupons.lock(tx, {record.coupon_id for record in records if record.request_id})
        self.decided_at = engine.database_now(tx)
        self.result = IssueResult()

    def write(self, records: Sequence[Record], failing: Failures) -> None:
        """Decide and write records together; requests in `failing` hold the seats they are entitled to.

        If the database raises, roll back to the savepoint and re-raise the error.
        """
        with engine.savepoint(self._tx):
            self._store(self._plan(records, failing))

    def find_failing(self, records: Sequence[Record]) -> Failures:
        """Return which requests cannot be issued although they are entitled to a seat."""
        probed = self._plan(records, {}).probed_writes(self._log_id)
        return write_probe.find_failing(self._tx, probed, self.decided_at)

    def write_failed(self, record: Record, failure: Failure) -> None:
        """Write one request whose own write failed: its seat is held for a retry, or it is dead."""
        request = record.request if failure.failure_class is FailureClass.RECORD else None
        plan = self._plan([record], {request.request_id: failure} if request else {})
        plan.kill_unless_held(failure)
        self._store(plan)

    def _plan(self, records: Sequence[Record], failing: Failures) -> WritePlan:
        if self.result.counts:  # an earlier segment of this batch has changed the counters
            self._coupons = coupons.get_many(self._tx, self._coupons)
        asked = [request for record in records if (request := record.request)]
        prior = requests.prior_requests(self._tx, {(request.coupon_id, request.user_id) for request in asked})
        outcomes = decide(asked, self._coupons, prior, failing, refuse_foreign=self._refuse_foreign)
        return WritePlan(records, self._coupons, outcomes, failing)

    def _store(self, plan: WritePlan) -> None:
        if plan.unverified:
            partition, offset = plan.unverified[0]
            self._key_register.require_complete(
                self._tx, f"no key verifies the request id of the record at partition {partition}, offset {offset}"
            )
        if ended_keys := {record.ended_key for record in plan.records if record.ended_key}:
            request_id_keys.record_late_ids(self._tx, ended_keys)
        columns = requests.insert_columns(plan.outcomes)
        self._on_decided()
        requests.insert(self._tx, self._log_id, columns, self.decided_at)
        first_retry_at = self.decided_at + timedelta(seconds=ISSUE_RETRY_POLICY.delay_seconds)
        retries.insert(self._tx, self._log_id, plan.held, first_retry_at)
        retries.insert_standby(self._tx, self._log_id, plan.standby())
        dead_letters.insert(self._tx, self._log_id, plan.dead)
        failed_attempts.insert(self._tx, self._log_id, plan.failed_attempts(), self.decided_at)
        write_probe.raise_injected(self._tx, plan.injected_faults())
        plan.add_to(self.result, notices=self._notices)
