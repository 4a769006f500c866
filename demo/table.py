"""The tables: the sale in numbers, coupon by coupon, and the proof."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from demo.coupons import Coupon
from demo.findings import Findings
from demo.history import Outcome
from demo.proof import Check
from demo.view import Row

WAIT = (
    "wait: from the moment the user sends the request until decided_at in the database, in milliseconds, of accepted "
    "requests. A coupon's includes those that were retried, after 1 s and 2 s, and those that stood by behind them. "
    "A record that is made to fail has the issuer split its batch: its neighbours wait for that too."
)


def show_sale(console: Console, found: Findings) -> None:
    """Prints what became of everybody."""
    console.print(_sale(found), _coupons(found), Text(WAIT, "dim"), sep="\n")


def show_proof(console: Console, checks: Sequence[Check]) -> None:
    """Prints every check, at last what failed."""
    console.print(_proof(checks))
    for check in checks:
        if not check.ok:
            console.print(f"FAILED: {check.promise} {check.what}: {_listed(check.numbers)}", style="red")


def percentile(values: Iterable[float], share: float) -> float | None:
    """The least value that this share of them does not exceed (nearest rank); None if there are none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None


def _sale(found: Findings) -> Table:
    table = Table("the sale")
    table.add_column(justify="right")
    for what, number in (*_told(found), *_decided(found)):
        table.add_row(what, number)
    return table


def _told(found: Findings) -> Iterator[tuple[str, str]]:
    """What the users were told."""
    seconds = max(call.t1 for call in found.calls) - min(call.t0 for call in found.calls)
    yield f"calls, in {seconds:.1f} s", f"{len(found.calls):,}"
    yield "accepted (202)", f"{len(found.accepted):,}"
    for outcome in (Outcome.REFUSED, Outcome.UNKNOWN):
        codes = Counter(call.code or "" for call in found.calls if call.outcome is outcome)
        yield from ((f"{outcome}: {code}", f"{number:,}") for code, number in sorted(codes.items()))
    if not any(call.outcome is Outcome.UNKNOWN for call in found.calls):
        yield "unknown", "0"


def _decided(found: Findings) -> Iterator[tuple[str, str]]:
    """What became of it."""
    rows = found.sale.rows
    states = Counter(row.state for row in rows)
    poison = sum(1 for letter in found.sale.letters if letter.code == "poison")
    notices = Counter(state for _, state in found.receiver.told.elements())
    posts = f"{len(found.receiver.deliveries)} verified POSTs and {found.receiver.repeats} repeats"
    yield "issued", f"{states['issued']:,}"
    yield "refused after a 202: the waitlist's end", f"{states['refused']:,}"
    yield "retried (more than one attempt)", f"{sum(1 for row in rows if row.attempts > 1):,}"
    yield "dead", f"{states['dead']:,}"
    yield "poison records", f"{poison:,}"
    yield f"notified, in {posts}", f"{notices.total():,}"
    yield "  of these", _listed(notices)
    yield "wait p50 / p99, decided at the first attempt", _waits(found, lambda row: row.attempts == 1)
    yield "wait p50 / p99, retried", _waits(found, lambda row: row.attempts > 1)


def _coupons(found: Findings) -> Table:
    table = Table("coupon")
    for name in ("quantity", "asked for", "accepted", "issued", "remaining", "wait p50 / p99"):
        table.add_column(name, justify="right")
    for coupon in found.coupons:
        asked = sum(1 for call in found.calls if call.coupon_id == coupon.id)
        accepted = sum(1 for call in found.accepted.values() if call.coupon_id == coupon.id)
        numbers = (coupon.quantity, asked, accepted, coupon.issued, coupon.remaining)
        table.add_row(coupon.name, *(f"{number:,}" for number in numbers), _waits(found, _of(coupon)))
    return table


def _of(coupon: Coupon) -> Callable[[Row], bool]:
    return lambda row: row.coupon_id == coupon.id


def _waits(found: Findings, wanted: Callable[[Row], bool]) -> str:
    waits = [
        (row.decided_at.timestamp() - call.t0) * 1000
        for row in found.sale.rows
        if row.decided_at and wanted(row) and (call := found.accepted.get(row.request_id))
    ]
    return " / ".join("–" if (wait := percentile(waits, share)) is None else f"{wait:,.0f}" for share in (0.5, 0.99))


def _proof(checks: Sequence[Check]) -> Table:
    table = Table("promise", "what", "", "numbers")
    for check in checks:
        mark = Text("✔", "green") if check.ok else Text("✘", "red")
        table.add_row(check.promise, check.what, mark, _listed(check.numbers))
    return table


def _listed(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {number:,}" for name, number in numbers.items())
