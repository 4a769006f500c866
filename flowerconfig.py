"""Flower's settings; environment variables override them. Its API can start tasks, so it listens on loopback."""

import os
from typing import Any

from service import config, startup
from service.domain.errors import Misconfigured

with startup.exit_on_error():
    if config.load().celery_over_kafka:
        raise Misconfigured(
            [
                (
                    "CELERY_BROKER_URL: Flower needs Celery events, which the Kafka transport does not support; "
                    "use Redis as the broker"
                )
            ]
        )

address = os.environ.get("FLOWER_ADDRESS", "127.0.0.1")
#: `args` and `kwargs` are the texts of workers/descriptions.py: which requests and which attempt, and why
tasks_columns = os.environ.get("FLOWER_TASKS_COLUMNS", "name,args,kwargs,state,result,received,uuid")


def format_task(task: Any) -> Any:
    """Return the task as Flower's pages show it: empty arguments left out, a result's quotes removed.

    Flower calls this with a copy. For a task that raised, the result column shows the exception.
    """
    if task.args in ("()", "[]"):
        task.args = ""
    if task.kwargs == "{}":
        task.kwargs = ""
    task.result = task.exception if task.state in ("FAILURE", "RETRY") else (task.result or "").strip("'\"")
    if task.result == "None":
        task.result = ""
    return task
