"""Processes that a row adds to the stack for a while: a second API, issuer or Celery worker."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

from stack import app_processes, logs, ports
from stack.errors import StackError
from stack.local import LocalStack
from stack.process_spec import ProcessSpec
from tests.faults.scenario import Scenario

EXTRA_WORKER = "extra-worker"


@contextmanager
def extra_process(stack: LocalStack, part: ProcessSpec) -> Iterator[None]:
    """Run one more process during the block; a part that was added before is started again."""
    try:
        stack.start(part.name)
    except StackError:
        stack.add(part)
    try:
        yield
    finally:
        with suppress(StackError):  # the row may have ended it
            stack.stop(part.name)


@contextmanager
def extra_api(scenario: Scenario, clock_offset_ms: int) -> Iterator[str]:
    """Run a second API whose clock is off by `clock_offset_ms`; yield its URL."""
    port = ports.any_free()
    environment = {**scenario.stack.environment, "API_PORT": str(port), "CLOCK_OFFSET_MS": str(clock_offset_ms)}
    part = replace(app_processes.api(environment), name=f"api{clock_offset_ms:+}")
    with extra_process(scenario.stack, part):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def extra_issuer(scenario: Scenario, name: str, end: Callable[[str], None] | None = None) -> Iterator[None]:
    """Run a second issuer, ready when the block begins; at the end of the block `end` stops it (default: in order)."""
    scenario.urls[name] = scenario.stack.add_issuer(name)
    try:
        yield
    finally:
        (end or scenario.stack.stop)(name)
        del scenario.urls[name]


@contextmanager
def extra_worker(scenario: Scenario) -> Iterator[None]:
    """Run a second Celery worker, named EXTRA_WORKER."""
    log = scenario.stack.directory / "log" / f"{EXTRA_WORKER}.log"
    part = app_processes.worker(scenario.stack.environment, log)
    argv = (*part.argv, f"--hostname={EXTRA_WORKER}@%h")
    healthy = lambda: " ready." in logs.since_start(log)  # noqa: E731
    with extra_process(scenario.stack, replace(part, name=EXTRA_WORKER, argv=argv, healthy=healthy)):
        yield
