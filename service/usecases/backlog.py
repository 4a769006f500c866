"""The ceiling of undecided records: above it the API accepts nothing more, before the line grows without bound."""

from collections.abc import Callable, Mapping

from service.domain.request import LogPosition
from service.log import get_logger
from service.log_events import LogEvent

#: share of the ceiling that must be undecided at most before requests are accepted again
_RESUME_SHARE = 0.9
_log = get_logger(__name__)


class Backlog:
    """Counts undecided records from what the process gets anyway: acknowledged offsets and the issuers' progress.

    A partition counts from the next offset to decide to the last offset that this process's records got there. Offsets
    are those of the whole partition, so the records of other processes count too, as of that moment. A partition
    without an offset or without progress does not count: after a start until the first acknowledgement, after Redis was
    emptied until the next commit of an issuer, and while Redis does not answer.
    """

    def __init__(self, max_undecided: int, log_id: Callable[[], int]) -> None:
        """`max_undecided`: 0 for no ceiling. `log_id` returns the id of the open log."""
        #: whether so many records are undecided that no request may be added
        self.is_full = False
        self._max_undecided = max_undecided
        self._log_id = log_id
        self._counted_log_id = log_id()
        self._last_offsets: dict[int, int] = {}

    def on_appended(self, position: LogPosition) -> None:
        """Note where a record of this process was appended."""
        self._last_offsets[position.partition] = position.offset

    def update(self, next_offsets: Mapping[int, int]) -> None:
        """Count again. `next_offsets`: the issuers' progress, next offset to decide by partition; empty if unknown."""
        if self._max_undecided == 0:
            return
        if (log_id := self._log_id()) != self._counted_log_id:  # the offsets of another log mean other records
            self._counted_log_id = log_id
            self._last_offsets.clear()
        undecided = sum(
            max(0, offset + 1 - next_offsets.get(partition, offset + 1))
            for partition, offset in self._last_offsets.items()
        )
        is_full = undecided > self._max_undecided * (_RESUME_SHARE if self.is_full else 1)
        if is_full and not self.is_full:
            _log.warning(LogEvent.BACKLOG_FULL, undecided=undecided, max_undecided=self._max_undecided)
        elif self.is_full and not is_full:
            _log.info(LogEvent.BACKLOG_REDUCED, undecided=undecided)
        self.is_full = is_full
