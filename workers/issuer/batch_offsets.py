"""The offsets of a batch, as a value that every log line of the batch can carry."""

from collections.abc import Iterable
from functools import cached_property

from service.domain.request import LogPosition


class BatchOffsets:
    """First and last offset by partition, shown as `{0: '17-240', 3: '5'}`.

    Bound as a context variable for each batch; computed lazily, because successful batches log nothing.
    """

    def __init__(self, log_positions: Iterable[LogPosition]) -> None:
        self._log_positions = log_positions

    @cached_property
    def text(self) -> str:
        """The offsets as a log line shows them."""
        ranges: dict[int, tuple[int, int]] = {}
        for partition, offset in self._log_positions:
            first, last = ranges.get(partition, (offset, offset))
            ranges[partition] = min(first, offset), max(last, offset)
        return str({at: f"{first}-{last}" if first != last else f"{first}" for at, (first, last) in ranges.items()})

    def __repr__(self) -> str:
        return self.text
