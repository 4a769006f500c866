"""Flower's settings; environment variables override them, options of its command override both.

Flower's pages show who requested which coupon, and its API starts tasks and stops workers. So it listens on loopback,
asks for credentials everywhere else, and only displays unless FLOWER_READ_ONLY=false.
"""

import os
import re
import stat
from pathlib import Path
from typing import Any

from flower.options import default_options
from flower.utils import strtobool
from flower.utils.broker import RedisSentinel
from flower.views.monitor import Metrics
from tornado.web import authenticated

from service import config, startup
from service.config.parsing import MIN_SECRET_BYTES, is_loopback
from service.config.secret_files import FileFault, read_secret
from service.domain.errors import Misconfigured
from service.gate.client import build_async_client

_LOGIN = re.compile(rf"[^:]+:.{{{MIN_SECRET_BYTES},}}")

address = default_options.address or "127.0.0.1"
read_only = os.environ.get("FLOWER_READ_ONLY", "true")
#: `args` and `kwargs` are the texts of workers/descriptions.py: which requests and which attempt, and why
tasks_columns = os.environ.get("FLOWER_TASKS_COLUMNS", "name,args,kwargs,state,result,received,uuid")
#: the file that keeps tasks and workers over a restart of Flower; empty: they are kept in memory only
db = os.environ.get("FLOWER_DB", "")
persistent = "true" if db else "false"
#: milliseconds; a Flower that is killed forgets what it saw since the last time
state_save_interval = os.environ.get("FLOWER_STATE_SAVE_INTERVAL", "10000")
#: Flower answers nobody while it saves, which takes a third of a second for so many
max_tasks = os.environ.get("FLOWER_MAX_TASKS", "10000")
#: seconds for which a worker that is gone is listed as offline; a new container has a new name
purge_offline_workers = os.environ.get("FLOWER_PURGE_OFFLINE_WORKERS", "3600")
#: the content of FLOWER_BASIC_AUTH_FILE, the same as FLOWER_BASIC_AUTH
_in_file = os.environ.get("FLOWER_BASIC_AUTH_FILE") and read_secret(
    "FLOWER_BASIC_AUTH_FILE", os.environ["FLOWER_BASIC_AUTH_FILE"]
)
if _in_file and not isinstance(_in_file, FileFault):
    basic_auth = _in_file.split(",")


def _has_credentials() -> bool:
    logins = default_options.basic_auth or globals().get("basic_auth", ())
    return bool(default_options.auth) or (bool(logins) and all(map(_LOGIN.fullmatch, logins)))


def _fault_of_state_file() -> str | None:
    """Return why Flower must not keep its state in FLOWER_DB, or None.

    The file is a pickle: whoever can replace it decides what Flower's process runs.
    """
    directory = Path(db).absolute().parent
    if not os.access(directory, os.W_OK | os.X_OK):
        return f"{directory} is not a directory in which Flower may create files"
    if directory.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"others may replace the files in {directory}, which Flower loads as Python objects: chmod go-w it"
    return None


def _faults() -> list[str]:
    faults = []
    needed = f"set FLOWER_BASIC_AUTH=user:password, with at least {MIN_SECRET_BYTES} characters in the password"
    if config.load_without_keys().celery_over_kafka:
        faults.append(
            "CELERY_BROKER_URL: Flower needs Celery events, which the Kafka transport does not support; "
            "use Redis as the broker"
        )
    if isinstance(_in_file, FileFault):
        faults.append(f"FLOWER_BASIC_AUTH: {_in_file.reason}")
    elif _in_file and default_options.basic_auth:
        faults.append("FLOWER_BASIC_AUTH: is set, and FLOWER_BASIC_AUTH_FILE as well: unset one of them")
    if not _has_credentials() and (default_options.unix_socket or not is_loopback(address)):
        faults.append(f"FLOWER_ADDRESS: others than you can reach {default_options.unix_socket or address}: {needed}")
    if not _has_credentials() and strtobool(os.environ.get("FLOWER_UNAUTHENTICATED_API") or "false"):
        faults.append(f"FLOWER_UNAUTHENTICATED_API: every web page that you open could call Flower: {needed} instead")
    if db and (fault := _fault_of_state_file()):
        faults.append(f"FLOWER_DB: {fault}")
    return faults


with startup.exit_on_error():
    if _found := _faults():
        raise Misconfigured(_found)

# Flower's own client of Sentinel asks the first one only, and reads database 0
RedisSentinel._get_redis_client = lambda *_: build_async_client(  # noqa: SLF001
    config.load_without_keys().celery_broker_url
)
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
