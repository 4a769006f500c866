"""Another producer beside the API: requests for one coupon appended at a constant rate, for as long as a block runs."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from benchmarks.arrivals import Arrivals
from benchmarks.ground import Ground
from benchmarks.records import Asked, minted, producer, shuffled
from service.stream.topics import Topic

Appended = list[tuple[int, float]]
"""Users, and when their requests were due, in seconds since 1970."""

_TICK_SECONDS = 0.01


@contextmanager
def paced(ground: Ground, coupon_id: int, rate: float, most_seconds: float) -> Iterator[Appended]:
    """Appends while the block runs, for so long at most; what it gives is filled when the block has ended."""
    asked = list(minted(coupon_id, shuffled(round(rate * most_seconds))))
    appended: Appended = []
    over = threading.Event()
    thread = threading.Thread(target=_append, args=(ground, asked, rate, appended, over))
    thread.start()
    try:
        yield appended
    finally:
        over.set()
        thread.join()


def _append(ground: Ground, asked: Sequence[Asked], rate: float, appended: Appended, over: threading.Event) -> None:
    client, began = producer(ground.stack.kafka_bootstrap_servers), time.time()
    arrivals = Arrivals(rate, len(asked))
    while not over.wait(_TICK_SECONDS):
        due = asked[len(appended) : arrivals.due_by(time.time() - began)]
        for one in due:
            client.produce(Topic.ISSUE_COUPON, one.value, one.key, headers=one.headers)
        client.poll(0)
        appended += [(one.user_id, began + arrivals.due_at(n)) for n, one in enumerate(due, len(appended))]
    assert client.flush(60) == 0, "records were not acknowledged"
