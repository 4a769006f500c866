"""`coupons gate`: make the gate true to the database again."""

from collections.abc import Iterator

import typer
from sqlalchemy import Engine

from service import resources
from service.commands.console import CouponId, open_for_command, print_result, require_coupon
from service.domain.errors import Unavailable
from service.store import coupons
from service.store.engine import in_transaction

app = typer.Typer(help="Redis, the fast refusal.", no_args_is_help=True)
_PAGE = 500


@app.callback()
def _group() -> None:
    """Makes `repair` a command of its own."""


@app.command()
def repair(coupon: CouponId = None) -> None:
    """Fill the gate anew from the database and the log; needed only where someone wrote to Redis behind its back."""
    with open_for_command("gate") as common:
        warmer = resources.gate_filler(common)
        for number in [require_coupon(common, coupon)] if coupon is not None else _all(common.engine):
            common.gate_admin.evict(number)
            warmer.fill(number)
            if common.gate_admin.is_cold(number):
                raise Unavailable("Redis", f"another process has not filled coupon {number} yet; run it again")
            print_result(None, [f"coupon {number}: filled"], as_json=False)


def _all(engine: Engine) -> Iterator[int]:
    after = 0
    while True:
        with in_transaction(engine) as tx:
            found = coupons.page(tx, after, _PAGE)
        if not found:
            return
        yield from (coupon.id for coupon in found)
        after = found[-1].id
