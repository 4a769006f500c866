"""The stage of a row: the running system, users at it, and what must become true while and after a fault."""

import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from random import Random

import httpx
from sqlalchemy import text

from service.stream.partitioner import partition_of
from stack import logs
from tests.faults.crowd import FAILING, Crowd, asks
from tests.faults.ledger import Invariant, Ledger
from tests.system import SETTLE_SECONDS, System
from tests.waiting import Value, eventually

#: promised: work goes on so soon after a broker or database is back
RECOVERED_SECONDS = 30.0
#: by then a readiness probe has noticed
RED_SECONDS = 15.0
_PROBE_SECONDS = 3.0


class Scene:
    """Users, and demands that are counted."""

    def __init__(self, system: System, ledger: Ledger, random: Random) -> None:
        self.system = system
        self.stack = system.stack
        self.ledger = ledger
        self.random = random
        #: how long what piled up may take to be done with, once the row is over
        self.settled_within_seconds = SETTLE_SECONDS
        self._said_before = {path: path.stat().st_size for path in (self.stack.directory / "log").glob("*.log")}
        self.first_told = len(system.history)
        self.urls = {"api": system.stack.api_url, "issuer": system.stack.issuer_url}
        self.newest_coupon_before = system.count("SELECT coalesce(max(id), 0) FROM coupons")

    @contextmanager
    def users(self, per_second: float = 60, at_once: int = 16, failing: float = FAILING) -> Iterator[Crowd]:
        """Users press for coupons, plentiful and scarce, while the block lasts; it begins once some are served."""
        make = self.system.make_coupon
        coupons = [make(1_000_000), make(60), make(40, waitlist=30), make(1)]
        wishes = asks(coupons, (60, 20, 15, 5), self.random, failing)
        with Crowd(self.stack.api_url, self.system.history, wishes, per_second, at_once) as crowd:
            issued = "SELECT issued FROM coupons WHERE id = :id"
            self.system.eventually(lambda: self.system.count(issued, id=coupons[0]) > 20)
            yield crowd
        self.ledger.check(Invariant.ANSWERED, not crowd.unanswered, crowd.unanswered)

    def receipt(self, coupon_id: int, user_id: int, fault: str | None = None) -> str:
        """The id of the request that a user presses for until it is accepted."""
        return self.system.press(coupon_id, user_id, fault).headers["location"].removeprefix("/issuances/")

    def place(self, request_id: str) -> tuple[int, int, int]:
        """Log, partition and offset of a request, once it has a row."""
        query = text('SELECT log_id, partition, "offset" FROM requests WHERE request_id = :id')

        def found() -> tuple[int, int, int] | None:
            with self.system.store.begin() as tx:
                row = tx.execute(query, {"id": request_id}).one_or_none()
            return None if row is None else (row[0], row[1], row[2])

        return self.system.eventually(found)

    def waiting_notices(self) -> int:
        """Hand-offs that nobody has carried out."""
        return self.system.count("SELECT count(*) FROM outbox")

    def users_hear_nothing(self) -> None:
        """Waits until a user is not answered, or told that the outcome is unknown."""
        before = len(self.system.history)
        self.system.eventually(lambda: any(told.outcome == "unknown" for told in self.system.history[before:]))

    def log(self, name: str) -> str:
        """What a process has said since the row began, under whatever pid."""
        path = self._log_path(name)
        return path.read_bytes()[self._said_before.get(path, 0) :].decode(errors="replace")

    def log_since_start(self, name: str) -> str:
        """What a process has said since it was last started, or since the row began, whichever was later."""
        return self.log(name).rpartition(logs.STARTED)[2]

    def had_partitions(self, name: str) -> bool:
        """Waits until an issuer says that partitions are its own; what it joins with may be none."""
        return self.system.eventually(lambda: re.search(r"assigned: \[\d", self.log_since_start(name)) is not None)

    def _log_path(self, name: str) -> Path:
        return self.stack.directory / "log" / f"{name}.log"

    def turns_red(self, *names: str) -> None:
        """The readiness of these processes says so soon."""
        for name in names:
            self.within(RED_SECONDS, Invariant.READINESS, partial(self._is_ready, name, wanted=False), f"{name} red")

    def turns_green(self, *names: str) -> None:
        """These processes become ready again by themselves."""
        for name in names:
            green = partial(self._is_ready, name, wanted=True)
            self.within(RECOVERED_SECONDS, Invariant.READINESS, green, f"{name} green")

    def recovers(self, since: float, within_seconds: float = RECOVERED_SECONDS) -> None:
        """Within the bound all are ready and a new request is issued, with no process started again for it."""
        self.turns_green("api", "issuer")
        issued = self.system.final(self.receipt(self.system.make_coupon(1), 1))["state"] == "issued"
        self.in_time(since, within_seconds, issued, "issued again")

    def issues_everywhere(self, since: float, within_seconds: float) -> None:
        """Within the bound a new request is issued on every partition."""
        receipts = [self.receipt(coupon, 1) for coupon in self._one_on_each_partition()]
        issued = all(self.system.final(receipt)["state"] == "issued" for receipt in receipts)
        self.in_time(since, within_seconds, issued, "issued everywhere")

    def in_time(self, since: float, within_seconds: float, kept: object, what: object) -> None:
        """Something came true within its bound."""
        took = time.monotonic() - since
        self.ledger.check(Invariant.IN_TIME, kept and took <= within_seconds, f"{what} after {took:.1f} s")

    @contextmanager
    def locked(self, coupon_id: int) -> Iterator[None]:
        """Somebody else has the coupon's row locked while the block lasts."""
        with self.system.store.begin() as tx:
            tx.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
            tx.execute(text("SELECT FROM coupons WHERE id = :id FOR UPDATE"), {"id": coupon_id})
            yield

    def demand(self, kept: object, what: object) -> None:
        """Something that this row alone demands."""
        self.ledger.check(Invariant.AS_PROMISED, kept, what)

    def within(self, seconds: float, invariant: Invariant, condition: Callable[[], Value | None], what: str) -> Value:
        """The condition's first true value; a violation when there is none in time."""
        try:
            value = eventually(condition, within_seconds=seconds)
        except AssertionError as late:
            self.ledger.check(invariant, kept=False, detail=f"{what}: {late}")
            raise
        self.ledger.check(invariant, kept=True)
        return value

    def _one_on_each_partition(self) -> Iterable[int]:
        partitions = self.system.settings.topic_partitions
        found: dict[int, int] = {}
        while len(found) < partitions:
            coupon = self.system.make_coupon(1)
            found.setdefault(partition_of(coupon, partitions), coupon)
        return found.values()

    def _is_ready(self, name: str, *, wanted: bool) -> bool:
        """Whether a process's readiness is as wanted; one that does not answer a probe in time is not ready."""
        try:
            return (httpx.get(f"{self.urls[name]}/readyz", timeout=_PROBE_SECONDS).status_code == 200) is wanted
        except httpx.HTTPError:
            return not wanted
