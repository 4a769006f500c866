"""The Celery application; `celery -A workers` finds it here. Tasks open their clients in the process that runs them."""

from typing import Any

from celery import Celery
from celery.signals import setup_logging, worker_process_shutdown

from service import config, log
from workers import rooms

app = Celery("workers")
app.config_from_object("celeryconfig")


@setup_logging.connect
def _configure_logging(**_: Any) -> None:
    log.configure(config.load())


@worker_process_shutdown.connect
def _close(**_: Any) -> None:
    rooms.close()
