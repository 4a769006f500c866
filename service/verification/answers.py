"""Compares what clients were answered with the log and the rows."""

from collections import Counter
from collections.abc import Iterable, Mapping

from sqlalchemy import Connection

from service.config import Settings
from service.domain.request import FINAL_STATES
from service.domain.request_id import RequestIds
from service.store import lost_ranges
from service.store.logs import Log
from service.stream.partitioner import partition_of
from service.verification import queries
from service.verification.history import ClientAnswer
from service.verification.queries import AnsweredRequest


class AnswerAudit:
    """Compares the answers of one coupon, or of all, in the transaction of the proof."""

    def __init__(self, settings: Settings, tx: Connection, log: Log, ids: RequestIds, coupon_id: int | None) -> None:
        """`log` is the open log; its undecided requests are in the temporary tables of the transaction."""
        self._settings = settings
        self._tx = tx
        self._log = log
        self._ids = ids
        self._coupon_id = coupon_id

    def audit(self, history: Iterable[ClientAnswer]) -> dict[str, int]:
        """Count answers by outcome and contradictions.

        Each accepted request must be in the log, each `duplicate` must name the user's own request, and every row must
        have been requested.
        """
        answers = (answer for answer in history if self._coupon_id in (None, answer.coupon_id))
        queries.insert_client_answers(
            self._tx, ((answer.coupon_id, answer.user_id, answer.outcome, answer.request_id) for answer in answers)
        )
        counted = ("accepted", "issued", "refused", "dead", "in_flight", "unknown")
        contradictions = ("lost", "contradicted", "phantom")
        found: Counter[str] = Counter(dict.fromkeys((*counted, *contradictions, "recorded_as_lost"), 0))
        lost_at_ms = lost_ranges.last_recorded_ms(self._tx)
        for answered in queries.answered_requests(self._tx):
            found[answered.outcome] += answered.outcome != "refused"
            if answered.request_id and (finding := self._finding(answered, answered.request_id, lost_at_ms)):
                found[finding] += 1
        unrequested = (
            self._ids.decode(one) for one in queries.unrequested_ids(self._tx, self._log.id, self._coupon_id)
        )
        found["phantom"] = sum(1 for claims in unrequested if claims and not claims.foreign)
        return dict(found)

    def _finding(self, answered: AnsweredRequest, request_id: str, lost_at_ms: Mapping[int, int]) -> str | None:
        """Return the state that the request of an answer reached, or how the database contradicts the answer.

        `lost_at_ms`: when records of a partition were last recorded as lost.
        """
        claims = self._ids.decode(request_id)
        if claims is None or claims[:2] != (answered.coupon_id, answered.user_id):
            return "contradicted"
        if answered.state is None and not answered.undecided:
            lost_ms = lost_at_ms.get(partition_of(claims.coupon_id, self._settings.topic_partitions))
            if lost_ms is not None and claims.minted_at_ms <= lost_ms:
                return "recorded_as_lost"
            return "lost" if answered.outcome == "accepted" else "contradicted"
        if answered.outcome == "refused":
            return None
        return answered.state if answered.state in FINAL_STATES else "in_flight"
