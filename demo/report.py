"""Last page of the demo: summary, tables, stories and the promises with their checks."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from demo.checks import ALL_PROMISES, DEMO, PROMISES, Check
from demo.result import SaleResult
from demo.stories import describe_stories
from demo.summary import duration, percentile, sentences
from demo.system_state import RequestRow

WAIT_NOTE = (
    "Wait: from sending a request until its decision is committed in the database. A request that was made to fail "
    "waits 1 s and 2 s for its next attempts, and requests on standby wait for it. A failing record also delays the "
    "other records of its batch: the issuer splits the batch to find it."
)
PROMISE_TEXTS = {
    "P1": "No coupon was issued more often than its quantity.",
    "P2": "No user got the same coupon twice.",
    "P3": "Requests were decided in log order; sold out was returned only if no seat was left.",
    "P4": "No accepted request was lost: it is issued, refused or a dead letter.",
    "P5": "No result contradicts the response that its user received.",
    DEMO: "Failures, dead letters, the replay and notices match the plan.",
}


def print_report(console: Console, result: SaleResult, checks: Sequence[Check], *, details: bool) -> None:
    """Print the last page; `details` adds every check with its numbers, failed checks are always printed."""
    console.rule("Result", style="none", align="left")
    for sentence in sentences(result):
        console.print(sentence, style="bold")
    console.print()
    console.print(_sale_table(result))
    console.print(_coupon_table(result))
    console.print(WAIT_NOTE, style="dim")
    console.print("\nObserved cases", style="bold")
    for title, text in describe_stories(result):
        console.print(Padding(Text.assemble((f"{title}: ", "bold"), text), (0, 0, 0, 2), expand=False))
    console.print("\nThe promises, verified from the Kafka log, the database and every response", style="bold")
    promises = Table.grid(padding=(0, 1))
    for promise in (*PROMISES, DEMO):
        promises.add_row("", _mark(promise_holds(promise, checks)), promise, PROMISE_TEXTS[promise])
    console.print(promises)
    if details:
        console.print(_check_table(checks))
    else:
        console.print(f"All {len(checks)} checks with their numbers: make demo DEMO=--details", style="dim")
    for check in checks:
        if not check.ok:
            console.print(f"FAILED: {check.promise} {check.what} ({format_numbers(check.numbers)})", style="red")


def _sale_table(result: SaleResult) -> Table:
    table = Table("the sale", box=box.ROUNDED)
    table.add_column(justify="right", no_wrap=True)
    for section in (_answer_rows(result), _decision_rows(result), _wait_rows(result)):
        for name, cell in section:
            table.add_row(name, cell)
        table.add_section()
    return table


def _answer_rows(result: SaleResult) -> Iterator[tuple[str, str]]:
    """Yield the responses of the API."""
    answers = result.answers
    seconds = max(answer.answered_at for answer in answers) - min(answer.sent_at for answer in answers)
    yield f"sent by the users within {seconds:.1f} s", f"{len(answers):,} requests"
    yield "accepted by the API (202)", f"{len(result.accepted):,} requests"
    refused = Counter(answer.code for answer in answers if answer.outcome == "refused")
    yield from ((f"refused by the API: {code}", f"{number:,} requests") for code, number in sorted(refused.items()))
    unknown = Counter(answer.code or "no code" for answer in answers if answer.outcome == "unknown")
    yield "no answer, or an error of the server", f"{unknown.total():,} requests"
    yield from ((f"  of these {code}", f"{number:,} requests") for code, number in sorted(unknown.items()))


def _decision_rows(result: SaleResult) -> Iterator[tuple[str, str]]:
    """Yield what became of the accepted requests and the other producer's records, before the replay."""
    rows = result.after_sale.rows
    states = Counter(row.state for row in rows)
    poison = sum(1 for letter in result.after_sale.dead_letters if letter.code == "poison")
    receiver = result.receiver
    yield "issued", f"{states['issued']:,} coupons"
    yield "refused after a 202, at the end of the waitlist", f"{states['refused']:,} requests"
    yield "failed and retried", f"{sum(1 for row in rows if row.attempts > 1):,} requests"
    yield "dead after three attempts", f"{states['dead']:,} requests"
    yield "malformed, from another producer (poison)", f"{poison:,} records"
    yield "delivered to the webhook, the replay included", f"{receiver.decisions.total():,} decisions"
    yield "  in POSTs with a valid signature", f"{len(receiver.posts):,} POSTs"
    yield "  repeated by the sender", f"{receiver.repeats:,} POSTs"


def _wait_rows(result: SaleResult) -> Iterator[tuple[str, str]]:
    rows = result.after_sale.rows
    for name, chosen in (
        ("decided at the first attempt", [row for row in rows if row.attempts == 1]),
        ("decided at a later attempt", [row for row in rows if row.attempts > 1]),
    ):
        yield f"{name}: median wait", _wait(result, chosen, 0.5)
        yield f"{name}: 99 % within", _wait(result, chosen, 0.99)


def _coupon_table(result: SaleResult) -> Table:
    table = Table("coupon", box=box.ROUNDED)
    for name in ("requested", "accepted", "issued", "median\nwait", "99 %\nwithin"):
        table.add_column(name, justify="right", no_wrap=True)
    for coupon in result.coupons:
        requested = sum(1 for answer in result.answers if answer.coupon_id == coupon.id)
        accepted = sum(1 for answer in result.accepted.values() if answer.coupon_id == coupon.id)
        rows = [row for row in result.after_sale.rows if row.coupon_id == coupon.id]
        table.add_row(
            coupon.name,
            f"{requested:,} times",
            f"{accepted:,} users",
            f"{coupon.issued:,} coupons",
            _wait(result, rows, 0.5),
            _wait(result, rows, 0.99),
        )
    return table


def _wait(result: SaleResult, rows: Sequence[RequestRow], share: float) -> str:
    return duration(percentile((result.waits[row.request_id] for row in rows if row.request_id in result.waits), share))


def promise_holds(promise: str, checks: Sequence[Check]) -> bool:
    """Return whether a promise was checked and nothing contradicts it, nor the verification as a whole."""
    own = [check.ok for check in checks if check.promise == promise]
    return bool(own) and all(own) and (promise == DEMO or all(c.ok for c in checks if c.promise == ALL_PROMISES))


def _mark(ok: bool) -> Text:
    return Text("✔", "green") if ok else Text("✘", "red")


def _check_table(checks: Sequence[Check]) -> Table:
    table = Table("", "promise", "check", "numbers", box=box.ROUNDED)
    for check in checks:
        table.add_row(_mark(check.ok), check.promise, check.what, format_numbers(check.numbers))
    return table


def format_numbers(numbers: Mapping[str, int]) -> str:
    """Format a check's numbers, each after its name."""
    return ", ".join(f"{name.replace('_', ' ')}: {number:,}" for name, number in numbers.items())
