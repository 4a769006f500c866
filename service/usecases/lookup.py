"""Finds the current state of requests; an accepted request is never reported as unknown."""

from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from sqlalchemy import Connection, Engine

from service.cancellation import Cancellation
from service.config import Settings
from service.domain.coupon import Coupon
from service.domain.error_code import ErrorCode
from service.domain.errors import KeyMissing, NotFound, Unavailable
from service.domain.request import ReasonCode, RequestState
from service.domain.request_id import RequestIdClaims, RequestIds
from service.gate.gate_admin import GateAdmin
from service.store import checkpoints, coupons, lost_ranges, requests
from service.store.checkpoints import Checkpoint
from service.store.engine import in_transaction, repeatable_read
from service.store.requests import StoredRequest
from service.stream.partitioner import partition_of
from service.usecases.gate_fill import GateFiller
from service.usecases.key_register import KeyRegister

#: allowance for differences between the clocks of the API, the broker and the database
CLOCK_SKEW_ALLOWANCE_MS = 30_000


class RequestStatus(NamedTuple):
    """The state of a request; times are milliseconds since 1970 UTC."""

    request_id: str
    coupon_id: int
    user_id: int
    state: RequestState
    code: ReasonCode | None
    sequence: int | None
    attempts: int
    requested_at_ms: int
    decided_at_ms: int | None
    partition: int
    #: of its record; None while that is not known
    offset: int | None

    @property
    def key(self) -> tuple[int, int, str]:
        """Coupon id, user id and request id, by which its row and its offset are read."""
        return self.coupon_id, self.user_id, self.request_id


class Undetermined(NamedTuple):
    """A request of this service without a row, which may never have been accepted; see `Lookup.determine_many`."""

    queued: RequestStatus
    #: when records of its partition were recorded as lost, if it was minted before; milliseconds since 1970 UTC
    lost_at_ms: int | None


Found = RequestStatus | Undetermined | KeyMissing | None
"""What one transaction found of an id; None: the id is forged, or its record is foreign and not decided."""


class Snapshot(NamedTuple):
    """What one transaction read, all of the same moment."""

    log_id: int
    checkpoints: Mapping[int, Checkpoint]
    #: by request id
    found: Mapping[str, Found]
    #: the coupons of the requests that are queued, by id
    coupons: Mapping[int, Coupon]


class Lookup:
    """Looks up requests by their ids and the database; Redis may be empty. Calls block unless they say otherwise."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        ids: RequestIds,
        key_register: KeyRegister,
        gate_filler: GateFiller,
        gate_admin: GateAdmin,
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._ids = ids
        self._key_register = key_register
        self._gate_filler = gate_filler
        self._gate_admin = gate_admin

    def find_many(self, request_ids: Sequence[str]) -> Snapshot:
        """Return what is known of requests, from one transaction; raise Unavailable."""
        return self.find_chosen(lambda _, __: request_ids)

    def find_chosen(self, choose: Callable[[int, Mapping[int, Checkpoint]], Sequence[str]]) -> Snapshot:
        """Return what is known of the requests that `choose` returns, from one transaction; raise Unavailable.

        choose: called with the id of the open log and its checkpoints.
        """
        # One snapshot of the database: a request that the checkpoints have passed has its row, and the seats of the
        # coupons are those at the checkpoints. So no request is compared with a coupon that it has changed itself.
        with repeatable_read(self._engine) as tx:
            log, by_partition = checkpoints.of_open_log(tx)
            claims = {name: self._ids.decode(name) for name in choose(log.id, by_partition)}
            stored = requests.find_many(tx, [(c.coupon_id, c.user_id, name) for name, c in claims.items() if c])
            found: dict[str, Found] = {name: status_of(row) for name, row in stored.items()}
            without_row = {name: c for name, c in claims.items() if c and not c.foreign and name not in stored}
            coupons_of_queued = {}
            if without_row:
                found |= self._without_row(without_row, by_partition, lost_ranges.last_recorded_ms(tx))
                coupons_of_queued = coupons.get_many(tx, (c.coupon_id for c in without_row.values()))
            unverified = [name for name, c in claims.items() if c is None and self._ids.is_unverified(name)]
            if unverified:
                found |= dict.fromkeys(unverified, self._missing_key(tx))
        return Snapshot(log.id, by_partition, {name: found.get(name) for name in claims}, coupons_of_queued)

    def determine_many(self, asked: Sequence[Undetermined], cancellation: Cancellation) -> list[RequestStatus | None]:
        """Return the status of each request, or None if it certainly was not accepted.

        The undecided tail of each partition is read once for all of them. An id that was minted before records were
        lost, and that is found nowhere, is answered as dead: its record may have been among them.

        Raises Unavailable, and Cancelled soon after `cancellation` is requested.
        """
        queued = [one.queued for one in asked]
        undecided = self._maybe_undecided(queued, cancellation)
        with in_transaction(self._engine) as tx:  # one may have been decided since; an issued request keeps its seat
            stored = requests.find_many(tx, [one.key for one in queued])
        return [_determined(one, stored.get(one.queued.request_id), undecided) for one in asked]

    def find(self, request_id: str) -> RequestStatus:
        """Return the state of one request.

        Raises NotFound for a forged id and a request that certainly was not accepted, KeyMissing, and Unavailable.
        """
        found = self.find_many([request_id]).found[request_id]
        if isinstance(found, KeyMissing):
            raise found
        if isinstance(found, Undetermined):
            (found,) = self.determine_many([found], Cancellation())
        if found is None:
            raise NotFound(ErrorCode.UNKNOWN_REQUEST, f"There is no request {request_id}.")
        return found

    def owner_of(self, request_id: str) -> int | None:
        """Return the user whose request it is, or None if no key verifies the id. It does not block."""
        claims = self._ids.decode(request_id)
        return claims and claims.user_id

    def may_be_unknown(self, status: RequestStatus, by_partition: Mapping[int, Checkpoint]) -> bool:
        """Return whether a request that has no row must be determined, because its first append is over.

        It does not block. Only a repeat, which is appended under the same id possibly much later, can still bring the
        request into the log.
        """
        return is_past_watermark(status.requested_at_ms, status.coupon_id, by_partition, self._settings)

    def _without_row(
        self,
        claims_by_id: Mapping[str, RequestIdClaims],
        by_partition: Mapping[int, Checkpoint],
        lost_ms_by_partition: Mapping[int, int],
    ) -> dict[str, Found]:
        """Return the requests as queued, or as undetermined if they may not be in the log."""
        found: dict[str, Found] = {}
        for name, claims in claims_by_id.items():
            partition = partition_of(claims.coupon_id, self._settings.topic_partitions)
            queued = RequestStatus(
                name, claims.coupon_id, claims.user_id, RequestState.QUEUED, None, None, 0, claims.minted_at_ms, None,
                partition, None,
            )  # fmt: skip
            lost_at_ms = lost_ms_by_partition.get(partition)
            if lost_at_ms is not None and claims.minted_at_ms > lost_at_ms:
                lost_at_ms = None
            is_in_doubt = lost_at_ms is not None or self.may_be_unknown(queued, by_partition)
            found[name] = Undetermined(queued, lost_at_ms) if is_in_doubt else queued
        return found

    def _missing_key(self, tx: Connection) -> KeyMissing | None:
        """Return why ids that no key verifies cannot be told from forged ones; None if they are forged."""
        try:
            self._key_register.require_complete(tx, "no key verifies the request id of a look-up")
        except KeyMissing as error:
            return error
        return None

    def _maybe_undecided(self, asked: Sequence[RequestStatus], cancellation: Cancellation) -> set[str]:
        """Return the ids of those that have their seat, or a record in the undecided tail of the log.

        A repeat is appended under the first request's id, possibly long after that id was minted.
        """
        found = set()
        with suppress(Unavailable):
            for one in asked:
                if self._gate_admin.seat_holder(one.coupon_id, one.user_id) == one.request_id:
                    found.add(one.request_id)
        others = {one.request_id: one.coupon_id for one in asked if one.request_id not in found}
        return found | self._gate_filler.find_undecided(others, cancellation)


def _determined(one: Undetermined, stored: StoredRequest | None, undecided: Container[str]) -> RequestStatus | None:
    if stored:
        return status_of(stored)
    if one.queued.request_id in undecided:
        return one.queued
    if one.lost_at_ms is None:
        return None
    return one.queued._replace(state=RequestState.DEAD, code=ReasonCode.LOST, decided_at_ms=one.lost_at_ms)


def status_of(row: StoredRequest) -> RequestStatus:
    """Return the state of a request that has a row."""
    request = row.request
    return RequestStatus(
        request.request_id,
        request.coupon_id,
        request.user_id,
        row.state,
        row.code,
        row.sequence,
        row.attempts,
        request.requested_at_ms,
        row.decided_at_ms,
        *request.log_position,
    )


def is_past_watermark(
    tried_at_ms: int, coupon_id: int, by_partition: Mapping[int, Checkpoint], settings: Settings
) -> bool:
    """Return whether any record appended by an attempt at `tried_at_ms` has been decided by now.

    Such a record is appended within the produce timeout; `by_partition` are the current checkpoints.
    """
    checkpoint = by_partition.get(partition_of(coupon_id, settings.topic_partitions))
    last_ms = tried_at_ms + settings.produce_timeout_ms + CLOCK_SKEW_ALLOWANCE_MS
    return checkpoint is not None and checkpoint.watermark_ms > last_ms
