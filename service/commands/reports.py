"""`coupons coupon report` and `coupons coupon export`: how a coupon was sold, and every request for it."""

from collections.abc import Iterator
from typing import Annotated

import typer

from service import resources
from service.commands.console import Cell, JsonOption, open_for_command, print_json, print_rows, write_bytes
from service.domain.coupon_report import CouponReport
from service.domain.request import RequestState
from service.limits import MAX_ID
from service.usecases.issuance_export import ExportFormat

_IdArgument = Annotated[int, typer.Argument(min=1, max=MAX_ID, help="The id of the coupon.")]


def report(coupon_id: _IdArgument, *, as_json: JsonOption = False) -> None:
    """Report how a coupon was sold: requests by state and code, waits, the time to the sell-out.

    JSON also has the series. docs/coupon-report.md says what each number counts.
    """
    with open_for_command("report") as common:
        found = resources.coupon_reporter(common).report(coupon_id)
    if as_json:
        print_json(found)
    else:
        print_rows(("What", "Value"), _rows(found), wrap_last=True)


def _rows(found: CouponReport) -> Iterator[tuple[str, Cell]]:
    coupon, counts, sell_out, waits = found.coupon, found.counts, found.sell_out, found.waits_ms
    yield "coupon", f"{coupon.id}: {coupon.name}"
    yield "as of", str(found.as_of)
    yield "quantity", coupon.quantity
    yield "accepted", counts.accepted
    yield "of other producers", counts.foreign
    yield "issued", counts.issued
    for state, by_code in (("refused", counts.refused), ("dead", counts.dead)):
        for code, count in by_code.items():
            yield f"{state}, {code}", count
    yield "held", counts.held
    yield "standby", counts.standby
    yield "undecided, at most", "not known" if found.undecided_at_most is None else found.undecided_at_most
    for name, period in (("requested", counts.requested), ("issued", counts.issuings)):
        yield f"first and last {name}", f"{period.first} to {period.last}" if period else "none"
    yield "sold out", f"at {sell_out.at}, {sell_out.seconds:.3f} s after {sell_out.since}" if sell_out else "no"
    if waits:
        yield "wait", ", ".join(f"{name} {wait} ms" for name, wait in waits._asdict().items())


def export(
    coupon_id: _IdArgument,
    form: Annotated[ExportFormat | None, typer.Option("--format", help="The form of the output. Default: csv.")] = None,
    state: Annotated[RequestState | None, typer.Option(help="Only requests in this state.")] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format jsonl.")] = False,
) -> None:
    """Write every request of a coupon to standard output, in the order of the log."""
    if as_json and form is ExportFormat.CSV:
        raise typer.BadParameter("--json cannot be combined with --format csv.")
    form = ExportFormat.JSONL if as_json else form or ExportFormat.CSV
    with open_for_command("export") as common:
        for page in resources.issuance_exporter(common).begin(coupon_id, form, state):
            if not write_bytes(page):
                break
