"""Reads where a request stands; never says "unknown" of one that was accepted."""

from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple

from sqlalchemy import Engine

from service.config import Settings
from service.domain.errors import Unavailable
from service.domain.request import ReasonCode, RequestState
from service.domain.request_id import RequestIdClaims, RequestIds
from service.gate.gate_admin import GateAdmin
from service.store import checkpoints, requests
from service.store.checkpoints import Checkpoint
from service.store.engine import in_transaction
from service.store.requests import StoredRequest
from service.stream.partitioner import partition_of
from service.usecases.gate_fill import GateFiller

#: allowance for clocks that differ between the API, the broker and the database
CLOCK_SKEW_ALLOWANCE_MS = 30_000


class RequestStatus(NamedTuple):
    """What a request's own page tells; times are milliseconds since 1970 UTC."""

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
    """Answers from the id itself and the database; Redis may be empty."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        log_id: int,
        ids: RequestIds,
        gate_filler: GateFiller,
        gate_admin: GateAdmin,
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._log_id = log_id
        self._ids = ids
        self._gate_filler = gate_filler
        self._gate_admin = gate_admin

    def find(self, request_id: str) -> RequestStatus | None:
        """The request's standing, or None: not an id of ours, or certainly never in the log. Raises Unavailable."""
        claim = self._ids.decode(request_id)
        if claim is None:
            return None
        with in_transaction(self._engine) as tx:
            positions = checkpoints.current_checkpoints(
                tx, self._log_id
            )  # before the row: what is passed by then has its row by now
            answer = requests.find(tx, claim.coupon_id, claim.user_id, request_id)
        if answer:
            return _decided(request_id, answer)
        if claim.foreign or self._is_lost(request_id, claim, positions):
            return None
        return _queued(request_id, claim)

    def _is_lost(self, request_id: str, claims: RequestIdClaims, positions: Mapping[int, Checkpoint]) -> bool:
        """Whether the issuer has passed every moment at which the request could be in the log, and it is not there.

        A repeat is appended under its first id, long after that was minted perhaps: its seat tells, or the log's tail.
        """
        if not is_past_watermark(claims.minted_at_ms, claims.coupon_id, positions, self._settings):
            return False
        with suppress(Unavailable):
            if self._gate_admin.seat_holder(claims.coupon_id, claims.user_id) == request_id:
                return False
        return not self._gate_filler.is_undecided(claims.coupon_id, request_id)


def is_past_watermark(
    tried_at_ms: int, coupon_id: int, positions: Mapping[int, Checkpoint], settings: Settings
) -> bool:
    """Whether all that an append tried at that moment can have put into the log has been decided."""
    position = positions.get(partition_of(coupon_id, settings.topic_partitions))
    last_ms = tried_at_ms + settings.produce_timeout_ms + CLOCK_SKEW_ALLOWANCE_MS
    return position is not None and position.watermark_ms > last_ms


def _decided(request_id: str, answer: StoredRequest) -> RequestStatus:
    request = answer.request
    return RequestStatus(
        request_id,
        request.coupon_id,
        request.user_id,
        answer.state,
        answer.code,
        answer.sequence,
        answer.attempts,
        request.requested_at_ms,
        answer.decided_at_ms,
    )


def _queued(request_id: str, claims: RequestIdClaims) -> RequestStatus:
    return RequestStatus(
        request_id, claims.coupon_id, claims.user_id, RequestState.QUEUED, None, None, 0, claims.minted_at_ms, None
    )
