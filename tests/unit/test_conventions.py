"""Conventions of the code that no other tool checks; ARCHITECTURE.md gives the reasons."""

import ast
from pathlib import Path

import pytest

from tests.unit.conftest import Facts

ROOT = Path(__file__).parents[2]
#: a folder that does not exist has no modules
FOLDERS = ("service", "workers", "stack", "testkit", "demo", "benchmarks", "tests")


def test_every_module_begins_with_a_docstring() -> None:
    """Every module has a docstring, except an empty `__init__.py`."""
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]

    without = [path for path in [ROOT / "celeryconfig.py", *files] if not _has_docstring(path)]

    assert without == []


def _has_docstring(path: Path) -> bool:
    text = path.read_text()
    return bool(ast.get_docstring(ast.parse(text))) or (path.name == "__init__.py" and not text)


def test_the_workers_package_is_empty() -> None:
    """`import workers.issuer` must not run Celery's app, so the package `workers` runs nothing."""
    assert not (ROOT / "workers" / "__init__.py").read_bytes()


def test_the_issuer_never_loads_celerys_app(import_facts: Facts) -> None:
    """The issuer is a process of its own and runs no Celery task (ARCHITECTURE.md, "Decide and write")."""
    loaded = set(import_facts["workers.issuer"]["modules"])

    assert "workers.issuer.loop" in loaded
    assert not loaded & {"workers.celery", "workers.tasks.retry", "workers.tasks.notify", "celeryconfig"}


def test_the_service_never_imports_celery_or_the_workers(import_facts: Facts) -> None:
    """Imports go from workers to service only, and the API never imports Celery (ARCHITECTURE.md, "Layout")."""
    loaded = {name.partition(".")[0] for name in import_facts["service"]["modules"]}

    assert "fastapi" in loaded
    assert not loaded & {"celery", "kombu", "workers", "stack"}


@pytest.mark.parametrize("name", ["service", "workers.issuer"])
def test_nothing_connects_on_import(name: str, import_facts: Facts) -> None:
    """Importing opens no socket and starts no thread (ARCHITECTURE.md, "Layout")."""
    assert import_facts[name]["sockets"] == 0
    assert import_facts[name]["threads"] == 1
