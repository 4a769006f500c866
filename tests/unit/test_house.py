"""The rules of the house that no other tool checks."""

import ast
from pathlib import Path

import pytest

from tests.unit.conftest import Facts

ROOT = Path(__file__).parents[2]
FOLDERS = ("service", "workers", "stack", "demo", "benchmarks", "tests")


def test_every_module_says_what_it_holds() -> None:
    """Section 7: every module opens with a docstring, except an `__init__.py` that has nothing to say."""
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]

    silent = [path for path in [ROOT / "celeryconfig.py", *files] if not _opens_with_a_docstring(path)]

    assert silent == []


def _opens_with_a_docstring(path: Path) -> bool:
    text = path.read_text()
    return bool(ast.get_docstring(ast.parse(text))) or (path.name == "__init__.py" and not text)


def test_the_workers_package_is_empty() -> None:
    """Section 6: `import workers.issuer` runs nothing of Celery's app, because its package runs nothing at all."""
    assert not (ROOT / "workers" / "__init__.py").read_bytes()


def test_the_issuer_never_loads_celerys_app(told: Facts) -> None:
    """Section 6: the dedicated consumer runs no Celery task and loads none."""
    loaded = set(told["workers.issuer"]["modules"])

    assert "workers.issuer.loop" in loaded
    assert not loaded & {"workers.celery", "workers.tasks.retry", "workers.tasks.notify", "celeryconfig"}


def test_the_service_never_imports_celery_or_the_workers(told: Facts) -> None:
    """Section 6: imports go one way, workers to service; the API never imports Celery."""
    loaded = {name.partition(".")[0] for name in told["service"]["modules"]}

    assert "fastapi" in loaded
    assert not loaded & {"celery", "kombu", "workers", "stack"}


@pytest.mark.parametrize("name", ["service", "workers.issuer"])
def test_nothing_connects_on_import(name: str, told: Facts) -> None:
    """Section 7: importing opens no socket and starts no client's threads."""
    assert told[name]["sockets"] == 0
    assert told[name]["threads"] == 1
