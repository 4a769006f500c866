"""Reads the states of requests for many callers at a time: one transaction and one call of the gate for all of them."""

from collections.abc import Sequence
from contextlib import suppress

from service.domain.errors import KeyMissing, Unavailable
from service.domain.request import RequestState
from service.gate.async_gate import AsyncGate
from service.gate.batcher import Batcher
from service.usecases.lookup import Lookup, RequestStatus, Snapshot, Undetermined
from service.usecases.operator_work import BoundedThreads
from service.usecases.progress_watch import IssuanceStatus, ProgressWatch

#: minimum time between two transactions; callers that arrive meanwhile share the next one
_MIN_INTERVAL_SECONDS = 0.02
_MAX_BATCH_SIZE = 2_000

_Read = IssuanceStatus | Undetermined | KeyMissing | None


class StatusReader:
    """Reads states from the database. The gate only adds the offset of a queued request, as long as it has it."""

    def __init__(
        self,
        lookup: Lookup,
        gate: AsyncGate,
        progress: ProgressWatch,
        threads: BoundedThreads,
        determining_threads: BoundedThreads,
    ) -> None:
        """`determining_threads` read the log, which takes longer; the other callers do not wait for that."""
        self._lookup = lookup
        self._gate = gate
        self._progress = progress
        self._threads = threads
        self._determining_threads = determining_threads
        self._batches: Batcher[str, _Read] = Batcher(
            "PostgreSQL", self._read_many, max_batch_size=_MAX_BATCH_SIZE, min_interval_seconds=_MIN_INTERVAL_SECONDS
        )
        self._determined: Batcher[Undetermined, RequestStatus | None] = Batcher(
            "Kafka", self._determine_many, max_batch_size=_MAX_BATCH_SIZE, max_waiting=_MAX_BATCH_SIZE
        )

    def owner_of(self, request_id: str) -> int | None:
        """Return the user whose request it is, or None if no key verifies the id; read nothing."""
        return self._lookup.owner_of(request_id)

    async def read(self, request_id: str) -> IssuanceStatus | None:
        """Return the state of a request, or None for a forged id and a request that certainly was not accepted.

        Raises Unavailable, also for an id that may be signed with a key that is missing here, and TooBusy.
        """
        found = await self._batches.submit(request_id)
        if isinstance(found, KeyMissing):
            raise found
        if not isinstance(found, Undetermined):
            return found
        determined = await self._determined.submit(found)
        return determined and self._progress.describe(determined)

    async def _determine_many(self, asked: Sequence[Undetermined]) -> list[RequestStatus | None]:
        threads = self._determining_threads
        return await threads.run(self._lookup.determine_many, asked, threads.cancellation)

    async def _read_many(self, request_ids: Sequence[str]) -> list[_Read]:
        snapshot = await self._threads.run(self._lookup.find_many, request_ids)
        self._progress.observe(snapshot)
        with_offsets = {**snapshot.found, **await self._find_offsets(snapshot)}
        described: dict[str, _Read] = {
            name: self._progress.describe(found, snapshot) if isinstance(found, RequestStatus) else found
            for name, found in with_offsets.items()
        }
        return [described[name] for name in request_ids]

    async def _find_offsets(self, snapshot: Snapshot) -> dict[str, RequestStatus]:
        """Return the queued requests with the offsets that the gate has; none while Redis does not answer."""
        queued = [
            found
            for found in snapshot.found.values()
            if isinstance(found, RequestStatus) and found.state is RequestState.QUEUED
        ]
        with suppress(Unavailable):
            if queued:
                offsets = await self._gate.read_offsets([one.key for one in queued])
                return {
                    one.request_id: one._replace(offset=offset) for one, offset in zip(queued, offsets, strict=True)
                }
        return {}
