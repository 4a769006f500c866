"""Finds the current state of a request; an accepted request is never reported as unknown."""

from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple

from sqlalchemy import Engine

from service.config import Settings
from service.domain.errors import Unavailable
from service.domain.request import ReasonCode, RequestState
from service.domain.request_id import RequestIdClaims, RequestIds
from service.gate.gate_admin import GateAdmin
from service.store import checkpoints, lost_ranges, requests
from service.store.checkpoints import Checkpoint
from service.store.engine import in_transaction
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


class Lookup:
    """Looks up requests by their id and the database; Redis may be empty."""

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

    def find(self, request_id: str) -> RequestStatus | None:
        """Return the request's status, or None for a forged id and a request that certainly was not accepted.

        An id that was minted before records were lost, and that is found nowhere, is answered as dead: its record may
        have been among them. Raises Unavailable, also for an id that may be signed with a key that is missing here.
        """
        claims = self._ids.decode(request_id)
        if claims is None:
            if self._ids.is_unverified(request_id):
                with in_transaction(self._engine) as tx:
                    self._key_register.require_complete(tx, "no key verifies the request id of a look-up")
            return None
        with in_transaction(self._engine) as tx:
            # Read before the row: a request that these checkpoints have passed has its row by then.
            _, by_partition = checkpoints.of_open_log(tx)
            stored = requests.find(tx, claims.coupon_id, claims.user_id, request_id)
            lost_at_ms = None
            if stored is None:
                partition = partition_of(claims.coupon_id, self._settings.topic_partitions)
                lost_at_ms = lost_ranges.last_recorded_ms(tx, partition)
        if stored:
            request = stored.request
            return RequestStatus(
                request_id,
                request.coupon_id,
                request.user_id,
                stored.state,
                stored.code,
                stored.sequence,
                stored.attempts,
                request.requested_at_ms,
                stored.decided_at_ms,
            )
        if claims.foreign:
            return None
        minted_before_loss = lost_at_ms is not None and claims.minted_at_ms <= lost_at_ms
        passed = is_past_watermark(claims.minted_at_ms, claims.coupon_id, by_partition, self._settings)
        state, code, decided_at_ms = RequestState.QUEUED, None, None
        if (minted_before_loss or passed) and not self._may_be_undecided(request_id, claims):
            if not minted_before_loss:
                return None
            state, code, decided_at_ms = RequestState.DEAD, ReasonCode.LOST, lost_at_ms
        coupon_id, user_id = claims.coupon_id, claims.user_id
        return RequestStatus(request_id, coupon_id, user_id, state, code, None, 0, claims.minted_at_ms, decided_at_ms)

    def _may_be_undecided(self, request_id: str, claims: RequestIdClaims) -> bool:
        """Return whether the request has its seat, or its record is in the undecided tail of the log.

        A repeat is appended under the first request's id, possibly long after that id was minted.
        """
        with suppress(Unavailable):
            if self._gate_admin.seat_holder(claims.coupon_id, claims.user_id) == request_id:
                return True
        return self._gate_filler.is_undecided(claims.coupon_id, request_id)


def is_past_watermark(
    tried_at_ms: int, coupon_id: int, by_partition: Mapping[int, Checkpoint], settings: Settings
) -> bool:
    """Return whether any record appended by an attempt at `tried_at_ms` has been decided by now.

    Such a record is appended within the produce timeout; `by_partition` are the current checkpoints.
    """
    checkpoint = by_partition.get(partition_of(coupon_id, settings.topic_partitions))
    last_ms = tried_at_ms + settings.produce_timeout_ms + CLOCK_SKEW_ALLOWANCE_MS
    return checkpoint is not None and checkpoint.watermark_ms > last_ms
