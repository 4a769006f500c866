"""What the operator asks the API about coupons: to make one, to add a seat, and how it stands."""

import httpx
import msgspec

from demo.sale import Offer

ANSWER_SECONDS = 10.0


class Coupon(msgspec.Struct, frozen=True):
    """A coupon as the API shows it."""

    id: int
    name: str
    quantity: int
    issued: int
    standby: int
    remaining: int


def make(api_url: str, offer: Offer) -> Coupon:
    """Makes a coupon."""
    body = {"name": offer.name, "quantity": offer.quantity, "waitlist": offer.waitlist}
    return _read(httpx.post(f"{api_url}/coupons", json=body, timeout=ANSWER_SECONDS))


def add_seat(api_url: str, coupon: Coupon) -> Coupon:
    """Raises the quantity by one; the coupon as it is then."""
    body = {"quantity": coupon.quantity + 1}
    return _read(httpx.patch(f"{api_url}/coupons/{coupon.id}", json=body, timeout=ANSWER_SECONDS))


def look(api_url: str, coupon_id: int) -> Coupon:
    """A coupon as it stands."""
    return _read(httpx.get(f"{api_url}/coupons/{coupon_id}", timeout=ANSWER_SECONDS))


def _read(response: httpx.Response) -> Coupon:
    return msgspec.json.decode(response.raise_for_status().content, type=Coupon)
