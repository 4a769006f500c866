"""Effects of importing the project, measured in a fresh process: `python -m tests.unit.facts service`."""

import importlib
import inspect
import json
import os
import pkgutil
import subprocess
import sys
from typing import Any, TypeAlias

import psutil

#: the required settings; nothing listens at these addresses
ENVIRONMENT = {
    "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9",
    "DATABASE_URL": "postgresql://nobody@127.0.0.1:9/nothing",
    "REDIS_URL": "redis://127.0.0.1:9/0",
    "CELERY_BROKER_URL": "redis://127.0.0.1:9/1",
    "REQUEST_ID_KEYS": "k" * 16,
}
FactsProcess: TypeAlias = "subprocess.Popen[bytes]"
#: can be imported by Alembic only, inside a migration
_MIGRATIONS = "service.store.migrations."


def start(*arguments: str) -> FactsProcess:
    """Start a process that measures; get its output with `read`."""
    command = [sys.executable, "-W", "error", "-m", "tests.unit.facts", *arguments]
    return subprocess.Popen(command, env={**os.environ, **ENVIRONMENT}, stdout=subprocess.PIPE)


def read(process: FactsProcess) -> dict[str, Any]:
    """Wait until the process has succeeded; return its output."""
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return dict(json.loads(output))


def _import_all(name: str) -> None:
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(package.__path__, f"{name}."):
        if not module.name.startswith(_MIGRATIONS):
            importlib.import_module(module.name)


def _imported() -> dict[str, Any]:
    """Return the loaded modules, and the number of sockets and threads that exist after loading them."""
    process = psutil.Process()
    return {
        "modules": sorted(sys.modules),
        "sockets": len(process.net_connections(kind="all")),
        "threads": process.num_threads(),
    }


def _celery() -> dict[str, Any]:
    """Return the tasks of the Celery app, and for each its queue and how many arguments it has."""
    from workers.celery import app  # noqa: PLC0415  # the other modes check what is loaded without it

    app.loader.import_default_modules()
    tasks = sorted(name for name in app.tasks if not name.startswith("celery."))
    queues = {name: app.amqp.router.route({}, name)["queue"].name for name in tasks}
    arguments = {name: len(inspect.signature(app.tasks[name].run).parameters) for name in tasks}
    return {"tasks": tasks, "queues": queues, "arguments": arguments}


def main(subject: str) -> None:
    """Print facts about Celery, or about the import of a package, as JSON."""
    if subject == "celery":
        facts = _celery()
    else:
        _import_all(subject)
        facts = _imported()
    sys.stdout.write(json.dumps(facts))


if __name__ == "__main__":
    main(sys.argv[1])
