"""The Celery application; `celery -A workers` finds it here. Tasks open their clients in the process that runs them."""

import os
from typing import Any

import billiard.pool
from celery import Celery, Task
from celery.signals import (
    celeryd_init,
    heartbeat_sent,
    setup_logging,
    worker_process_init,
    worker_process_shutdown,
    worker_shutdown,
)

from service import config, startup, tracing
from service.config.parsing import is_service_address
from service.log import bound_contextvars, get_logger
from service.log_events import LogEvent
from workers import heartbeats, messages, resources

_log = get_logger(__name__)


class LoggedTask(Task):  # type: ignore[misc]  # Celery has no types
    """The base of all tasks: logs each start, and binds task, task_id and task_attempt to every log line of the run."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task; a Celery retry counts as the next attempt."""
        request = self.request
        with bound_contextvars(task=self.name, task_id=request.id, task_attempt=request.retries + 1):
            # Tests and fault runs count these lines. A metric would need one file for each child process.
            _log.info(LogEvent.TASK_STARTED, source=messages.source_of(request).value)
            with tracing.task(self.name, request.id, request.headers):
                return self.run(*args, **kwargs)


if is_service_address(os.environ.get("FLOWER_PORT", "")):
    del os.environ["FLOWER_PORT"]  # Flower, which loads this application first, would take it for its port
app = Celery("workers", task_cls=LoggedTask)
app.config_from_object("celeryconfig")
# A child that ends waits until its parent has counted all its results. Under load the parent miscounts now and then
# (billiard 4), and then a worker takes thirty seconds to stop: 300 checks, a tenth of a second apart.
billiard.pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT = 30


@celeryd_init.connect
def check_settings(**_: Any) -> None:
    """End a worker whose settings are incomplete when it starts, not at its first task."""
    with startup.exit_on_error():
        config.load()


@setup_logging.connect
def configure_logging(**_: Any) -> None:
    """Configure the process in place of Celery's own logging setup; beat has no keys."""
    startup.configure_process(config.load_without_keys)


@worker_process_init.connect
def record_traces(**_: Any) -> None:
    """Begin to record traces in a child process, whose thread sends them."""
    tracing.configure(config.load(), "worker")


@worker_process_shutdown.connect
def close_resources(**_: Any) -> None:
    """Close the clients of a child process before it ends."""
    resources.close()
    tracing.close()


@heartbeat_sent.connect
def record_heartbeat(sender: Any, **_: Any) -> None:
    """Note that this worker runs; called every two seconds in its main process."""
    heartbeats.recorder().record(sender.eventer.hostname)


@worker_shutdown.connect
def withdraw_worker(sender: Any, **_: Any) -> None:
    """Note that this worker ends."""
    heartbeats.recorder().withdraw(sender.hostname)
