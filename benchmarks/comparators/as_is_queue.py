"""The AS-IS system's waiting queue in Redis: its keys, its script, and how a coupon gets a queue."""

from importlib.resources import files

from redis import Redis

ENQUEUE_SCRIPT = files(__package__).joinpath("queue.lua").read_text()
#: the set of coupon ids that have a queue
COUPONS_KEY = "as_is:coupons"


def queue_key(coupon_id: int) -> str:
    """Return the key of the SortedSet of waiting users."""
    return f"as_is:{coupon_id}:queue"


def issued_key(coupon_id: int) -> str:
    """Return the key of the set of users that have the coupon."""
    return f"as_is:{coupon_id}:issued"


def quantity_key(coupon_id: int) -> str:
    """Return the key of the coupon's quantity."""
    return f"as_is:{coupon_id}:quantity"


def register_coupon(redis_url: str, coupon_id: int, quantity: int) -> None:
    """Make a coupon known to the AS-IS API and scheduler."""
    with Redis.from_url(redis_url) as redis:
        redis.set(quantity_key(coupon_id), quantity)
        redis.sadd(COUPONS_KEY, coupon_id)
