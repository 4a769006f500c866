"""The Celery application; `celery -A workers` finds it here. Tasks open their clients in the process that runs them."""

import logging
from typing import Any

import billiard.pool
from celery import Celery
from celery.signals import setup_logging, task_prerun, worker_process_shutdown

from service import startup
from workers import messages, resources

_log = logging.getLogger(__name__)
app = Celery("workers")
app.config_from_object("celeryconfig")
# A child that ends waits until its parent has counted all its results. Under load the parent miscounts now and then
# (billiard 4), and then a worker that is told to stop would take thirty seconds: 300 looks, a tenth of a second apart.
billiard.pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT = 30


@setup_logging.connect
def _configure_logging(**_: Any) -> None:
    startup.configure_process()


@task_prerun.connect
def _say_whose_hint(task: Any, **_: Any) -> None:
    """Counted by whoever reads the log: numbers of their own would need a file each, as children come and go."""
    _log.info("task runs", extra={"task": task.name, "hint": messages.source_of(task.request).value})


@worker_process_shutdown.connect
def _close(**_: Any) -> None:
    resources.close()
