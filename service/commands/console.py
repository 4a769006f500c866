"""What every command does first and last: opens the parts, prints lines or JSON."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import msgspec
import typer

from service import resources, startup
from service.domain.coupon import MAX_ID
from service.domain.errors import CouponsError, NotFound
from service.resources import Resources
from service.store import coupons
from service.store.engine import in_transaction

CouponId = Annotated[int | None, typer.Option("--coupon", min=1, max=MAX_ID, help="of this coupon only")]


@contextmanager
def open_for_command(name: str) -> Iterator[Resources]:
    """The parts for the length of a command; what cannot be done is said, with exit status 2."""
    with startup.exit_on_error():
        common = resources.open_resources(startup.configure_process(), name)
    try:
        yield common
    except CouponsError as error:
        print(error, file=sys.stderr)  # noqa: T201  # for whoever runs it
        sys.exit(2)
    finally:
        common.close()


def require_coupon(resources: Resources, coupon_id: int) -> int:
    """The id of a coupon that is there; raises Missing."""
    with in_transaction(resources.engine) as tx:
        if coupons.get(tx, coupon_id) is None:
            raise NotFound("unknown_coupon", f"there is no coupon {coupon_id}")
    return coupon_id


def print_result(told: Any, lines: Iterable[str], *, as_json: bool) -> None:
    """A command's result, for programs or for eyes."""
    for line in [msgspec.json.encode(_named(told)).decode()] if as_json else lines:
        print(line)  # noqa: T201  # the command's result


def _named(told: Any) -> Any:
    """Named tuples as objects: a program reads a field by its name, not by its place."""
    if hasattr(told, "_asdict"):
        told = told._asdict()
    if isinstance(told, dict):
        return {name: _named(part) for name, part in told.items()}
    return [_named(part) for part in told] if isinstance(told, list | tuple) else told
