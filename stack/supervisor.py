"""The supervisor: starts parts in stages, keeps them running, stops them in reverse order."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Self

from stack.errors import StackError
from stack.keeper import Keeper
from stack.launch import Launcher
from stack.part import Part


class Supervisor:
    """The parts of one stack; each call of `start` is a stage that is stopped before those started earlier."""

    def __init__(self, launcher: Launcher, say: Callable[[str], None]) -> None:
        self._launcher = launcher
        self._say = say
        self._stages: list[list[Keeper]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def start(self, parts: Sequence[Part]) -> None:
        """Starts parts side by side and waits for their health; raises CannotStart for the first that cannot."""
        keepers = [Keeper(part, len(self._stages), self._launcher, self._say) for part in parts]
        self._stages.append(keepers)
        with ThreadPoolExecutor(len(keepers) or 1) as pool:
            try:
                for started in as_completed([pool.submit(keeper.start) for keeper in keepers]):
                    started.result()
            except BaseException:
                self._launcher.abort.set()  # else the pool would wait for parts that nobody wants any more
                raise

    def run(self, part: Part) -> None:
        """Runs a part that ends by itself; raises CannotStart unless it exits with 0."""
        self._launcher.run(part, part.argv, len(self._stages))
        self._say(f"{part.name:<9} done")

    def keeper(self, name: str) -> Keeper:
        """The keeper of a part; raises StackError if this stack does not run it."""
        for keeper in self._keepers():
            if keeper.part.name == name:
                return keeper
        raise StackError(f"this stack does not run {name}; it runs {', '.join(self.names())}")

    def names(self) -> list[str]:
        """The parts in the order of their stages."""
        return [keeper.part.name for keeper in self._keepers()]

    def stop(self) -> None:
        """Ends everything, the last stage first, each stage side by side."""
        self._launcher.abort.set()
        while self._stages:
            keepers = self._stages.pop()
            self._launcher.end([child for keeper in keepers if (child := keeper.let_go())])
            for keeper in keepers:
                keeper.join()

    def _keepers(self) -> list[Keeper]:
        return [keeper for stage in self._stages for keeper in stage]
