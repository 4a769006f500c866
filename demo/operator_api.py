"""API calls of the operator: create and read coupons, list dead letters and replay one."""

import time
from collections.abc import Sequence
from http import HTTPStatus
from typing import NamedTuple

import httpx
import msgspec

from demo.sale import Offer
from testkit.credentials import Credentials

_TIMEOUT_SECONDS = 10.0
_POLL_SECONDS = 0.1
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


def connect(api_url: str, credentials: Credentials) -> httpx.Client:
    """Return the client with which the operator calls."""
    return httpx.Client(base_url=api_url, auth=credentials, timeout=_TIMEOUT_SECONDS)


def wait_until_admitted(api: httpx.Client) -> None:
    """Wait until the API knows the operator's key, which was just made; raise httpx.HTTPStatusError otherwise."""
    give_up_at = time.monotonic() + _TIMEOUT_SECONDS
    while (response := api.get("/coupons")).status_code == HTTPStatus.UNAUTHORIZED and time.monotonic() < give_up_at:
        time.sleep(_POLL_SECONDS)
    response.raise_for_status()


def create_coupon(api: httpx.Client, offer: Offer) -> Coupon:
    """Create a coupon."""
    body = {"name": offer.name, "quantity": offer.quantity, "waitlist": offer.waitlist}
    return _coupon(api.post("/coupons", json=body))


def read_coupon(api: httpx.Client, coupon_id: int) -> Coupon:
    """Read a coupon's current state."""
    return _coupon(api.get(f"/coupons/{coupon_id}"))


def list_dead_letters(api: httpx.Client) -> list[DeadLetter]:
    """List all dead letters, the newest first."""
    response = api.get("/dead-letters", params={"limit": MAX_DEAD_LETTERS})
    return msgspec.json.decode(response.raise_for_status().content, type=_DeadLetterPage).dead_letters


def replay_first(api: httpx.Client, coupon_id: int) -> Replay:
    """Replay the first in line of a coupon's dead letters, after a dry run, one seat more, and another dry run."""
    sold_out = read_coupon(api, coupon_id)
    dry_run_sold_out = _dry_run(api, coupon_id)
    body = {"quantity": sold_out.quantity + 1}
    raised = _coupon(api.patch(f"/coupons/{coupon_id}", json=body))
    dry_run_raised = _dry_run(api, coupon_id)
    replayed = None
    if dry_run_raised:
        url = f"/dead-letters/{dry_run_raised[0].id}/replay"
        response = api.post(url)
        replayed = msgspec.json.decode(response.raise_for_status().content, type=ReplayOutcome)
    return Replay(sold_out, dry_run_sold_out, raised, dry_run_raised, replayed)


def _dry_run(api: httpx.Client, coupon_id: int) -> list[ReplayOutcome]:
    """Return what a replay of each dead letter would do, in offset order."""
    body = {"coupon_id": coupon_id, "dry_run": True}
    response = api.post("/dead-letters/replay", json=body)
    return msgspec.json.decode(response.raise_for_status().content, type=_ReplayResponse).replayed


def _coupon(response: httpx.Response) -> Coupon:
    return msgspec.json.decode(response.raise_for_status().content, type=Coupon)
