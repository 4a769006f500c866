"""The operator's desk: the dead letters, and how one of them is brought back to a coupon that is sold out."""

from collections.abc import Sequence
from typing import NamedTuple

import httpx
import msgspec

from demo import coupons
from demo.coupons import ANSWER_SECONDS, Coupon

#: the most of one page, and far more than a demo makes
LETTERS_MOST = 500


class Letter(msgspec.Struct, frozen=True):
    """A dead letter as the API lists it; whose it is is not known where it could not be read."""

    id: int
    state: str
    code: str
    user_id: int | None
    request_id: str | None
    attempts: int


class Replayed(msgspec.Struct, frozen=True):
    """What came of a dead letter, or would: its request's state and code."""

    id: int
    request_id: str | None
    state: str | None
    code: str | None


class Replay(NamedTuple):
    """How it went: what a dry run said while all was gone and with one seat more, and what came of the first then."""

    sold_out: Coupon
    refused: Sequence[Replayed]
    raised: Coupon
    rehearsed: Sequence[Replayed]
    #: None: there was nothing to bring back
    done: Replayed | None


class _Listed(msgspec.Struct, frozen=True):
    dead_letters: list[Letter]


class _Many(msgspec.Struct, frozen=True):
    replayed: list[Replayed]


def letters(api_url: str) -> list[Letter]:
    """All dead letters, the newest first."""
    response = httpx.get(f"{api_url}/dead-letters", params={"limit": LETTERS_MOST}, timeout=ANSWER_SECONDS)
    return msgspec.json.decode(response.raise_for_status().content, type=_Listed).dead_letters


def bring_back(api_url: str, coupon_id: int) -> Replay:
    """Replays the first in line of a coupon's dead letters, after a dry run, a seat added, and another dry run."""
    sold_out = coupons.look(api_url, coupon_id)
    refused = _rehearse(api_url, coupon_id)
    raised = coupons.add_seat(api_url, sold_out)
    rehearsed = _rehearse(api_url, coupon_id)
    done = _replay(api_url, rehearsed[0].id) if rehearsed else None
    return Replay(sold_out, refused, raised, rehearsed, done)


def _rehearse(api_url: str, coupon_id: int) -> list[Replayed]:
    """What would come of each, in the order of their places in the log."""
    body = {"coupon_id": coupon_id, "dry_run": True}
    response = httpx.post(f"{api_url}/dead-letters/replay", json=body, timeout=ANSWER_SECONDS)
    return msgspec.json.decode(response.raise_for_status().content, type=_Many).replayed


def _replay(api_url: str, dead_letter_id: int) -> Replayed:
    response = httpx.post(f"{api_url}/dead-letters/{dead_letter_id}/replay", timeout=ANSWER_SECONDS)
    return msgspec.json.decode(response.raise_for_status().content, type=Replayed)
