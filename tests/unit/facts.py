"""What importing this project does, told by a fresh process of its own: `python -m tests.unit.facts service`."""

import importlib
import json
import os
import pkgutil
import subprocess
import sys
from typing import Any, TypeAlias

import psutil

#: what the settings ask for; nothing listens there
ENVIRONMENT = {
    "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9",
    "DATABASE_URL": "postgresql://nobody@127.0.0.1:9/nothing",
    "REDIS_URL": "redis://127.0.0.1:9/0",
    "CELERY_BROKER_URL": "redis://127.0.0.1:9/1",
    "REQUEST_ID_KEYS": "k" * 16,
}
Asked: TypeAlias = "subprocess.Popen[bytes]"
#: Alembic runs these, within a migration only
_MIGRATIONS = "service.store.migrations."


def ask(*arguments: str) -> Asked:
    """Starts a process that tells facts; read them with `told`."""
    command = [sys.executable, "-W", "error", "-m", "tests.unit.facts", *arguments]
    return subprocess.Popen(command, env={**os.environ, **ENVIRONMENT}, stdout=subprocess.PIPE)


def told(process: Asked) -> dict[str, Any]:
    """The facts, once the process has ended well."""
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return dict(json.loads(output))


def _import_all(name: str) -> None:
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(package.__path__, f"{name}."):
        if not module.name.startswith(_MIGRATIONS):
            importlib.import_module(module.name)


def _imported() -> dict[str, Any]:
    """Every module that is loaded, and the sockets and threads that loading them has left."""
    process = psutil.Process()
    return {
        "modules": sorted(sys.modules),
        "sockets": len(process.net_connections(kind="all")),
        "threads": process.num_threads(),
    }


def _celery() -> dict[str, Any]:
    """What Celery's app knows once a worker has loaded its tasks."""
    from workers.celery import app  # noqa: PLC0415  # the other questions are about not loading it

    app.loader.import_default_modules()
    tasks = sorted(name for name in app.tasks if not name.startswith("celery."))
    queues = {name: app.amqp.router.route({}, name)["queue"].name for name in tasks}
    return {"tasks": tasks, "queues": queues}


def main(question: str) -> None:
    """Answers one question in JSON."""
    if question == "celery":
        facts = _celery()
    else:
        _import_all(question)
        facts = _imported()
    sys.stdout.write(json.dumps(facts))


if __name__ == "__main__":
    main(sys.argv[1])
