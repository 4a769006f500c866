"""The running system of a row: user load, and checks of what must hold during and after a fault."""

import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from random import Random

import httpx
from sqlalchemy import text

from service.log_events import LogEvent
from service.stream.partitioner import partition_of
from stack import logs
from tests.faults.invariants import Invariant, InvariantChecker
from tests.faults.load import FAILING_SHARE, LoadGenerator, random_requests
from tests.system import RECOVERY_SECONDS, System
from tests.waiting import Value, eventually

#: promised: after a broker or database is back, work resumes within this time
RECOVERED_SECONDS = 30.0
#: within this time a readiness probe detects a fault
UNREADY_SECONDS = 15.0
_PROBE_SECONDS = 3.0
_NON_EMPTY_ASSIGNMENT = re.compile(rf"{re.escape(LogEvent.PARTITIONS_ASSIGNED)} .*partitions=\[\d")


class Scenario:
    """Put load on the system, and check conditions that the invariant checker counts."""

    def __init__(self, system: System, checker: InvariantChecker, random: Random) -> None:
        self.system = system
        self.stack = system.stack
        self.checker = checker
        self.random = random
        #: time limit after the row for the backlog to be processed
        self.completion_timeout_seconds = RECOVERY_SECONDS
        self._log_sizes_before = {path: path.stat().st_size for path in (self.stack.directory / "log").glob("*.log")}
        #: index of the row's first client answer in the system's history
        self.first_answer = len(system.history)
        #: base URLs of the processes that have a readiness endpoint, by part
        self.urls = {"api": system.stack.api_url, "issuer": system.stack.issuer_url}
        self.newest_coupon_before = system.count("SELECT coalesce(max(id), 0) FROM coupons")

    @contextmanager
    def under_load(
        self, per_second: float = 60, at_once: int = 16, failing: float = FAILING_SHARE
    ) -> Iterator[LoadGenerator]:
        """Send requests for plentiful and scarce coupons during the block, which begins once some are issued.

        At most `per_second` new users per second, `at_once` at a time; a share of `failing` requests fails on demand.
        """
        make = self.system.make_coupon
        coupons = [make(1_000_000), make(60), make(40, waitlist=30), make(1)]
        requests = random_requests(coupons, (60, 20, 15, 5), self.random, failing)
        with LoadGenerator(
            self.stack.api_url, self.system.credentials, self.system.history, requests, per_second, at_once
        ) as load:
            issued = "SELECT issued FROM coupons WHERE id = :id"
            self.system.eventually(lambda: self.system.count(issued, id=coupons[0]) > 20)
            yield load
        self.checker.check(Invariant.ALL_USERS_ANSWERED, not load.unanswered, load.unanswered)

    def submit(self, coupon_id: int, user_id: int, fault: str | None = None) -> str:
        """Send a user's request until it is accepted; return its request id."""
        return (
            self.system.request_until_answered(coupon_id, user_id, fault)
            .headers["location"]
            .removeprefix("/issuances/")
        )

    def record_location(self, request_id: str) -> tuple[int, int, int]:
        """Wait until a request has a row; return its log id, partition and offset."""
        query = text('SELECT log_id, partition, "offset" FROM requests WHERE request_id = :id')

        def found() -> tuple[int, int, int] | None:
            with self.system.store.begin() as tx:
                row = tx.execute(query, {"id": request_id}).one_or_none()
            return None if row is None else (row[0], row[1], row[2])

        return self.system.eventually(found)

    def count_outbox_entries(self) -> int:
        """Count the outbox entries that are not processed yet."""
        return self.system.count("SELECT count(*) FROM outbox")

    def wait_for_unknown_outcome(self) -> None:
        """Wait until a user gets no answer, or an answer that leaves the outcome unknown."""
        before = len(self.system.history)
        self.system.eventually(lambda: any(answer.outcome == "unknown" for answer in self.system.history[before:]))

    def process_log(self, name: str) -> str:
        """Return what a part has logged since the row began, including after a restart."""
        path: Path = self.stack.directory / "log" / f"{name}.log"
        return path.read_bytes()[self._log_sizes_before.get(path, 0) :].decode(errors="replace")

    def process_log_since_start(self, name: str) -> str:
        """Return what a part has logged since its last start or since the row began, whichever is later."""
        return self.process_log(name).rpartition(logs.START_MARKER)[2]

    def wait_for_assignment(self, name: str) -> bool:
        """Wait until an issuer logs a non-empty assignment; the first one after a join may be empty."""
        return self.system.eventually(
            lambda: _NON_EMPTY_ASSIGNMENT.search(self.process_log_since_start(name)) is not None
        )

    def becomes_unready(self, *names: str) -> None:
        """Check that the readiness endpoints of these parts soon report a fault."""
        for name in names:
            unready = partial(self._is_ready, name, wanted=False)
            self.check_becomes_true(unready, UNREADY_SECONDS, Invariant.READINESS, f"{name} unready")

    def becomes_degraded(self, part: str) -> None:
        """Check that the API soon reports that it accepts requests without this part."""
        self.check_becomes_true(
            partial(self._is_degraded, part), UNREADY_SECONDS, Invariant.READINESS, f"degraded: {part}"
        )

    def becomes_ready(self, *names: str) -> None:
        """Check that these parts become ready again by themselves."""
        for name in names:
            ready = partial(self._is_ready, name, wanted=True)
            self.check_becomes_true(ready, RECOVERED_SECONDS, Invariant.READINESS, f"{name} ready")

    def recovers(self, since: float, within_seconds: float = RECOVERED_SECONDS) -> None:
        """Check that all parts are ready and a new request is issued within the limit after `since` (monotonic)."""
        self.becomes_ready("api", "issuer")
        issued = self.system.wait_until_final(self.submit(self.system.make_coupon(1), 1))["state"] == "issued"
        self.check_in_time(since, within_seconds, issued, "issued again")

    def issues_on_every_partition(self, since: float, within_seconds: float) -> None:
        """Check that a new request on each partition is issued within the limit after `since` (monotonic)."""
        request_ids = [self.submit(coupon, 1) for coupon in self._coupon_on_each_partition()]
        issued = all(self.system.wait_until_final(request_id)["state"] == "issued" for request_id in request_ids)
        self.check_in_time(since, within_seconds, issued, "issued on every partition")

    def check_in_time(self, since: float, within_seconds: float, holds: object, what: object) -> None:
        """Check that a condition holds now, at most `within_seconds` after `since` (monotonic)."""
        took = time.monotonic() - since
        self.checker.check(Invariant.WITHIN_BOUND, holds and took <= within_seconds, f"{what} after {took:.1f} s")

    @contextmanager
    def coupon_locked(self, coupon_id: int) -> Iterator[None]:
        """Hold a row lock on the coupon in another session during the block."""
        with self.system.store.begin() as tx:
            tx.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
            tx.execute(text("SELECT FROM coupons WHERE id = :id FOR UPDATE"), {"id": coupon_id})
            yield

    def check(self, holds: object, what: object) -> None:
        """Check a condition that belongs to this row alone."""
        self.checker.check(Invariant.ROW_SPECIFIC, holds, what)

    def check_becomes_true(
        self, condition: Callable[[], Value | None], within_seconds: float, invariant: Invariant, what: str
    ) -> Value:
        """Return the condition's first true value; report a violation if there is none in time."""
        try:
            value = eventually(condition, within_seconds=within_seconds)
        except AssertionError as late:
            self.checker.check(invariant, holds=False, detail=f"{what}: {late}")
            raise
        self.checker.check(invariant, holds=True)
        return value

    def _coupon_on_each_partition(self) -> Iterable[int]:
        partitions = self.system.settings.topic_partitions
        found: dict[int, int] = {}
        while len(found) < partitions:
            coupon = self.system.make_coupon(1)
            found.setdefault(partition_of(coupon, partitions), coupon)
        return found.values()

    def _is_degraded(self, part: str) -> bool:
        answer = httpx.get(f"{self.urls['api']}/readyz", timeout=_PROBE_SECONDS, auth=self.system.credentials)
        return answer.status_code == 200 and answer.json()["degraded"] == [part]

    def _is_ready(self, name: str, *, wanted: bool) -> bool:
        """Compare a part's readiness with the wanted one; a part that does not answer in time is unready."""
        try:
            return (httpx.get(f"{self.urls[name]}/readyz", timeout=_PROBE_SECONDS).status_code == 200) is wanted
        except httpx.HTTPError:
            return not wanted
