"""How a query names rows by their place in a log: three arrays, the log's number in each row.

As a single value the number would look selective to a planner without fresh statistics, and it would read all rows of
the log to find a few.
"""

from collections.abc import Sequence

from service.domain.request import LogPosition

#: what places_of gives, for unnest; its first three columns are to be named l, p and o
POSITION_ARRAYS = "CAST(:logs AS smallint[]), CAST(:partitions AS int[]), CAST(:offsets AS bigint[])"
AT_POSITION = 'log_id = l AND partition = p AND "offset" = o'


def position_arrays(log_id: int, log_positions: Sequence[LogPosition]) -> dict[str, list[int]]:
    """The parameters of PLACES."""
    return {
        "logs": [log_id] * len(log_positions),
        "partitions": [place.partition for place in log_positions],
        "offsets": [place.offset for place in log_positions],
    }
