"""`coupons gate`: repair what Redis holds of the gate."""

import typer

from service import resources
from service.commands.console import CouponOption, JsonOption, open_for_command, print_json, print_line

app = typer.Typer(
    help="The gate: coupons and seats in Redis, used to refuse requests without database work.", no_args_is_help=True
)


@app.callback()
def _group() -> None:
    """Keep `repair` a subcommand; Typer would merge a single command into its group."""


@app.command()
def repair(coupon: CouponOption = None, *, as_json: JsonOption = False) -> None:
    """Fill the gate again from the database and the log.

    Needed only after something other than this service changed the gate's keys in Redis.
    """
    with open_for_command("gate") as common:
        service = resources.coupon_service(common)
        coupon_ids = service.iterate_ids() if coupon is None else [service.get(coupon).id]
        service.repair_shared_keys()
        if not as_json:
            print_line("progress of the partitions: published")
        for coupon_id in coupon_ids:
            service.refill_gate(coupon_id)
            if as_json:
                print_json({"coupon_id": coupon_id, "filled": True})
            else:
                print_line(f"coupon {coupon_id}: filled")
