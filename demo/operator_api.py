"""API calls of the operator: create and read coupons, list dead letters and replay one."""

from collections.abc import Sequence
from typing import NamedTuple

import httpx
import msgspec

from demo.sale import Offer

TIMEOUT_SECONDS = 10.0
#: the API's longest page, and far more dead letters than a demo makes
MAX_DEAD_LETTERS = 500


class Coupon(msgspec.Struct, frozen=True):
    """A coupon as the API returns it."""

    id: int
    name: str
    quantity: int
    issued: int
    standby: int
    remaining: int


class DeadLetter(msgspec.Struct, frozen=True):
    """A dead letter as the API lists it; user and request are None if the record was unreadable."""

    id: int
    state: str
    code: str
    user_id: int | None
    request_id: str | None
    attempts: int


class ReplayOutcome(msgspec.Struct, frozen=True):
    """State and code of a dead letter's request after a replay, or, in a dry run, those it would have."""

    id: int
    request_id: str | None
    state: str | None
    code: str | None


class Replay(NamedTuple):
    """Steps of a replay: a dry run while the coupon is sold out, one seat more, a second dry run, the replay."""

    sold_out: Coupon
    dry_run_sold_out: Sequence[ReplayOutcome]
    raised: Coupon
    dry_run_raised: Sequence[ReplayOutcome]
    #: None: there was no dead letter to replay
    replayed: ReplayOutcome | None


class _DeadLetterPage(msgspec.Struct, frozen=True):
    dead_letters: list[DeadLetter]


class _ReplayResponse(msgspec.Struct, frozen=True):
    replayed: list[ReplayOutcome]


def create_coupon(api_url: str, offer: Offer) -> Coupon:
    """Create a coupon."""
    body = {"name": offer.name, "quantity": offer.quantity, "waitlist": offer.waitlist}
    return _coupon(httpx.post(f"{api_url}/coupons", json=body, timeout=TIMEOUT_SECONDS))


def read_coupon(api_url: str, coupon_id: int) -> Coupon:
    """Read a coupon's current state."""
    return _coupon(httpx.get(f"{api_url}/coupons/{coupon_id}", timeout=TIMEOUT_SECONDS))


def list_dead_letters(api_url: str) -> list[DeadLetter]:
    """List all dead letters, the newest first."""
    response = httpx.get(f"{api_url}/dead-letters", params={"limit": MAX_DEAD_LETTERS}, timeout=TIMEOUT_SECONDS)
    return msgspec.json.decode(response.raise_for_status().content, type=_DeadLetterPage).dead_letters


def replay_first(api_url: str, coupon_id: int) -> Replay:
    """Replay the first in line of a coupon's dead letters, after a dry run, one seat more, and another dry run."""
    sold_out = read_coupon(api_url, coupon_id)
    dry_run_sold_out = _dry_run(api_url, coupon_id)
    body = {"quantity": sold_out.quantity + 1}
    raised = _coupon(httpx.patch(f"{api_url}/coupons/{coupon_id}", json=body, timeout=TIMEOUT_SECONDS))
    dry_run_raised = _dry_run(api_url, coupon_id)
    replayed = None
    if dry_run_raised:
        url = f"{api_url}/dead-letters/{dry_run_raised[0].id}/replay"
        response = httpx.post(url, timeout=TIMEOUT_SECONDS)
        replayed = msgspec.json.decode(response.raise_for_status().content, type=ReplayOutcome)
    return Replay(sold_out, dry_run_sold_out, raised, dry_run_raised, replayed)


def _dry_run(api_url: str, coupon_id: int) -> list[ReplayOutcome]:
    """Return what a replay of each dead letter would do, in offset order."""
    body = {"coupon_id": coupon_id, "dry_run": True}
    response = httpx.post(f"{api_url}/dead-letters/replay", json=body, timeout=TIMEOUT_SECONDS)
    return msgspec.json.decode(response.raise_for_status().content, type=_ReplayResponse).replayed


def _coupon(response: httpx.Response) -> Coupon:
    return msgspec.json.decode(response.raise_for_status().content, type=Coupon)
