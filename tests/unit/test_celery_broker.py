"""What is said of Celery's broker if it is away."""

from collections.abc import Callable

import pytest
from redis import Redis

from service.domain.errors import Unavailable
from service.gate.celery_broker import read_queues, require_writable
from service.gate.client import build_client


@pytest.mark.parametrize(
    "use", [lambda broker: read_queues(broker, ["retry"]), require_writable], ids=["read", "write"]
)
def test_a_broker_that_is_away_is_named_and_refuses_nothing(use: Callable[[Redis], object]) -> None:
    """The gate may answer, and a broker that refuses writes needs another remedy."""
    with build_client("redis://127.0.0.1:9/1") as broker, pytest.raises(Unavailable) as caught:
        use(broker)

    assert caught.value.part == "Celery's broker"
    assert str(caught.value).startswith("Celery's broker is unavailable: Error ")
