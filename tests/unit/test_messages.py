"""Whose hint a task follows: the worker's log counts by it."""

import pytest
from celery.app.task import Context

from workers import messages
from workers.queues import MessageSource


@pytest.mark.parametrize(
    ("request_", "hint"),
    [
        (Context(hint="sweep", retries=0), MessageSource.SWEEP),
        (Context(hint="broker", retries=0), MessageSource.BROKER),
        (Context(retries=0), MessageSource.BROKER),
        (Context(hint="sweep", retries=1), MessageSource.BROKER),
    ],
    ids=["sent again by the sweep", "sent by the issuer", "sent by beat", "Celery's own retry of a swept one"],
)
def test_a_task_knows_whose_hint_it_follows(request_: Context, hint: MessageSource) -> None:
    """A retry inherits the first message's header, but it is the broker that brought it."""
    assert messages.source_of(request_) is hint
