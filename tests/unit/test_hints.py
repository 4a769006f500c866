"""Whose hint a task follows: the worker's log counts by it."""

import pytest
from celery.app.task import Context

from workers import hints
from workers.names import Hint


@pytest.mark.parametrize(
    ("request_", "hint"),
    [
        (Context(hint="sweep", retries=0), Hint.SWEEP),
        (Context(hint="broker", retries=0), Hint.BROKER),
        (Context(retries=0), Hint.BROKER),
        (Context(hint="sweep", retries=1), Hint.BROKER),
    ],
    ids=["sent again by the sweep", "sent by the issuer", "sent by beat", "Celery's own retry of a swept one"],
)
def test_a_task_knows_whose_hint_it_follows(request_: Context, hint: Hint) -> None:
    """A retry inherits the first message's header, but it is the broker that brought it."""
    assert hints.followed(request_) is hint
