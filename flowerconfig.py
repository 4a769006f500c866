"""Flower's settings; environment variables override them, options of its command override both.

Flower's pages show who requested which coupon, and its API starts tasks and stops workers. So it listens on loopback,
asks for credentials everywhere else, and only displays unless FLOWER_READ_ONLY=false.
"""

import os
import re
from typing import Any

from flower.options import default_options
from flower.utils import strtobool
from flower.views.monitor import Metrics
from tornado.web import authenticated

from service import config, startup
from service.config.parsing import MIN_SECRET_BYTES, is_loopback
from service.domain.errors import Misconfigured

_LOGIN = re.compile(rf"[^:]+:.{{{MIN_SECRET_BYTES},}}")

address = default_options.address or "127.0.0.1"
read_only = os.environ.get("FLOWER_READ_ONLY", "true")
#: `args` and `kwargs` are the texts of workers/descriptions.py: which requests and which attempt, and why
tasks_columns = os.environ.get("FLOWER_TASKS_COLUMNS", "name,args,kwargs,state,result,received,uuid")


def _has_credentials() -> bool:
    logins = default_options.basic_auth or ()
    return bool(default_options.auth) or (bool(logins) and all(map(_LOGIN.fullmatch, logins)))


def _faults() -> list[str]:
    faults = []
    needed = f"set FLOWER_BASIC_AUTH=user:password, with at least {MIN_SECRET_BYTES} characters in the password"
    if config.load_without_keys().celery_over_kafka:
        faults.append(
            "CELERY_BROKER_URL: Flower needs Celery events, which the Kafka transport does not support; "
            "use Redis as the broker"
        )
    if not _has_credentials() and (default_options.unix_socket or not is_loopback(address)):
        faults.append(f"FLOWER_ADDRESS: others than you can reach {default_options.unix_socket or address}: {needed}")
    if not _has_credentials() and strtobool(os.environ.get("FLOWER_UNAUTHENTICATED_API") or "false"):
        faults.append(f"FLOWER_UNAUTHENTICATED_API: every web page that you open could call Flower: {needed} instead")
    return faults


with startup.exit_on_error():
    if _found := _faults():
        raise Misconfigured(_found)

Metrics.get = authenticated(Metrics.get)  # they name workers and tasks; Flower itself serves them to everybody


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
