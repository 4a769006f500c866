"""The supervisor: starts processes in stages, keeps them running, and stops the stages in reverse order."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Self

from stack.errors import StackError
from stack.launcher import Launcher
from stack.process_spec import ProcessSpec
from stack.restarter import Restarter


class Supervisor:
    """The processes of one stack. Each call of `start` adds a stage, which is stopped before the earlier stages."""

    def __init__(self, launcher: Launcher, report: Callable[[str], None]) -> None:
        self._launcher = launcher
        self._report = report
        self._stages: list[list[Restarter]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def start(self, specs: Sequence[ProcessSpec]) -> None:
        """Start processes in parallel and wait until all are healthy; raises CannotStart for the first that fails."""
        restarters = [Restarter(spec, len(self._stages), self._launcher, self._report) for spec in specs]
        self._stages.append(restarters)
        with ThreadPoolExecutor(len(restarters) or 1) as pool:
            try:
                for started in as_completed([pool.submit(restarter.start) for restarter in restarters]):
                    started.result()
            except BaseException:
                self._launcher.abort.set()  # otherwise leaving the pool would wait for the other starts
                raise

    def run(self, spec: ProcessSpec) -> None:
        """Run a process that ends by itself; raises CannotStart unless it exits with 0."""
        self._launcher.run(spec, spec.argv, len(self._stages))
        self._report(f"{spec.name:<9} done")

    def restarter(self, name: str) -> Restarter:
        """Return the restarter of a process; raises StackError if this stack does not run it."""
        restarters = [restarter for stage in self._stages for restarter in stage]
        for restarter in restarters:
            if restarter.spec.name == name:
                return restarter
        running = ", ".join(restarter.spec.name for restarter in restarters)
        raise StackError(f"this stack does not run {name}; it runs {running}")

    def stop(self) -> None:
        """Stop every process, the last stage first; the processes of a stage stop in parallel."""
        self._launcher.abort.set()
        while self._stages:
            restarters = self._stages.pop()
            self._launcher.stop([child for restarter in restarters if (child := restarter.disable())])
            for restarter in restarters:
                restarter.join()
