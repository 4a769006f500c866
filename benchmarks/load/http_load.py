"""HTTP load: the plan of a run, its result, and how to run it in a process of its own."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
from msgspec import Struct

from benchmarks import ROOT

STATUS_ACCEPTED = 202
_COMMAND = (sys.executable, "-m", "benchmarks.load.generator")
_TIMEOUT_SECONDS = 180.0
#: more requests than any server here answers in a second; a closed-model plan prepares this many for each second
_MAX_REQUESTS_PER_SECOND = 40_000


class Plan(Struct, frozen=True):
    """User `first_user + n` sends POST to `paths[n % len(paths)]`.

    With a rate the model is open: requests are due at that rate per second, whatever the responses. Without one it is
    closed: each connection sends its next request after a response, until all are sent or `seconds` are over.

    `{number}` in a path or in a header's value stands for the number of the request, in 16 digits.
    """

    port: int
    paths: list[str]
    first_user: int
    requests: int
    connections: int = 64
    rate: float | None = None
    seconds: float | None = None
    #: so many users send requests in turn; None: each request is another user's
    users: int | None = None
    #: every request's body, instead of one with the user's id
    body: str | None = None
    content_type: str = "application/json"
    headers: dict[str, str] = {}
    #: each request carries a ticket of its user, signed with this key
    ticket_key: str | None = None
    #: request n carries token n
    tokens: list[str] = []
    #: the body follows the head a millisecond later, so that the server receives two segments
    split: bool = False


class LoadResult(Struct, frozen=True):
    """Times of all requests in the order in which they were sent, in seconds since 1970."""

    began: float
    #: when each request was due; in the closed model: when it was sent
    due: list[float]
    sent: list[float]
    responded: list[float]
    #: number of responses by status code
    statuses: dict[int, int]
    #: CPU time of the generator itself, user and system
    cpu_seconds: float
    wall_seconds: float

    @property
    def cpu_share(self) -> float:
        """Share of one core that the generator used."""
        return self.cpu_seconds / self.wall_seconds

    @property
    def latencies(self) -> list[float]:
        """Seconds from when each request was due to its response."""
        return [end - begin for begin, end in zip(self.due, self.responded, strict=True)]

    def rate_after(self, warm_up_seconds: float) -> float:
        """Return responses per second, without those of the first `warm_up_seconds`."""
        begin, end = self.began + warm_up_seconds, max(self.responded)
        return sum(at > begin for at in self.responded) / (end - begin)


@dataclass(frozen=True)
class ArrivalSchedule:
    """`count` requests at a constant rate per second, the first one at once: an open model.

    A wait begins when its request was due. If it began when the request could be sent, a request that had to queue
    behind a slow response would look fast (coordinated omission).
    """

    rate: float
    count: int

    def due_at(self, number: int) -> float:
        """Return the seconds from the start until request `number`, counted from 0, is due."""
        return number / self.rate

    def due_count(self, seconds: float) -> int:
        """Return how many requests are due `seconds` after the start."""
        if seconds < 0:
            return 0
        return min(self.count, int(seconds * self.rate) + 1)


def issuance_path(coupon_id: int) -> str:
    """Return the path of the call that requests a coupon."""
    return f"/coupons/{coupon_id}/issuances"


def run_load(plan: Plan, *expected: int) -> LoadResult:
    """Run a plan in a generator process; raise AssertionError unless every response has an expected status.

    Without one, 202 is expected.

    The processes exchange files: under uvloop, a pipe was seen to lose the end of a long text.
    """
    with TemporaryDirectory(prefix="coupons-load-") as directory:
        plan_file, result_file = Path(directory, "plan"), Path(directory, "result")
        plan_file.write_bytes(msgspec.json.encode(plan))
        command = [*_COMMAND, str(plan_file), str(result_file)]
        subprocess.run(command, cwd=ROOT, check=True, timeout=_TIMEOUT_SECONDS)
        result = msgspec.json.decode(result_file.read_bytes(), type=LoadResult)
    allowed = expected or (STATUS_ACCEPTED,)
    assert result.statuses.keys() <= set(allowed), f"responses: {result.statuses}, expected {allowed} only"
    return result


def closed_model(port: int, path: str, seconds: float, connections: int = 256) -> Plan:
    """Return a plan for `seconds` in which each connection sends its next request after a response."""
    prepared = round(seconds * _MAX_REQUESTS_PER_SECOND)
    return Plan(port, [path], 1, prepared, connections=connections, seconds=seconds)


def run_closed_model(port: int, coupon_id: int, seconds: float, connections: int = 256) -> LoadResult:
    """Request a coupon for `seconds`, see `closed_model`."""
    return run_load(closed_model(port, issuance_path(coupon_id), seconds, connections))
