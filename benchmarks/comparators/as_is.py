"""The names that the API and the scheduler of the replaced system share in Redis."""

from importlib.resources import files

QUEUE = files(__package__).joinpath("queue.lua").read_text()
#: ids of coupons that have a queue
COUPONS = "as_is:coupons"


def queue_key(coupon_id: int) -> str:
    """The SortedSet of those who wait."""
    return f"as_is:{coupon_id}:queue"


def issued_key(coupon_id: int) -> str:
    """The set of those to whom it is issued."""
    return f"as_is:{coupon_id}:issued"


def quantity_key(coupon_id: int) -> str:
    """How many there are."""
    return f"as_is:{coupon_id}:quantity"
