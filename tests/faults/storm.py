"""What a storm is made of: for each target the faults that may befall it, some at once, all by chance."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from os import kill
from signal import SIGKILL

from service.crash_points import CrashPoint
from stack.errors import StackError
from tests.faults import manners
from tests.faults.hands import Hands
from tests.faults.scene import Scene

Felt = Callable[[], object]
"""Whether a fault happened, asked at its end; None: it has checked that itself."""
Fault = Callable[[Scene, Hands], AbstractContextManager[Felt | None]]
_BACKEND = "SELECT pid FROM pg_stat_activity WHERE application_name IN ('api', 'issuer', 'worker') LIMIT 1"
_MANNERS = (manners.error, manners.too_many, manners.redirect, manners.hang, manners.dribble, manners.half)
_AT_ONCE = (0, 1, 2, 3)


@contextmanager
def _killed(name: str, _: Scene, hands: Hands) -> Iterator[None]:
    hands.kill(name)
    yield


@contextmanager
def _terminated(name: str, _: Scene, hands: Hands) -> Iterator[Felt]:
    told = hands.terminate(name)
    yield lambda: not told.is_running()


def _frozen(name: str, _: Scene, hands: Hands) -> AbstractContextManager[None]:
    return hands.frozen(name)


def _away(name: str, _: Scene, hands: Hands) -> AbstractContextManager[None]:
    return hands.away(name)


@contextmanager
def _crashing(prefix: str, scene: Scene, hands: Hands) -> Iterator[Felt]:
    """Killed at one of its crash points, if it comes there."""
    armed = hands.arm(scene.random.choice([point for point in CrashPoint if point.startswith(prefix)]))
    yield lambda: not armed.exists()
    hands.disarm(armed)


@contextmanager
def _emptied(scene: Scene, _: Hands) -> Iterator[Felt]:
    had = scene.system.redis.dbsize()
    scene.system.redis.flushall()
    yield lambda: had


@contextmanager
def _backend_killed(scene: Scene, _: Hands) -> Iterator[Felt]:
    backend = scene.system.count(_BACKEND)
    kill(backend, SIGKILL)
    yield lambda: f"PID {backend}) was terminated by signal 9" in scene.log("postgres")


@contextmanager
def _joined(scene: Scene, _: Hands) -> Iterator[None]:
    """Another issuer comes and leaves."""
    name = f"guest-{scene.random.randrange(10**9)}"
    scene.stack.add_issuer(name)
    yield
    scene.stack.stop(name)


@contextmanager
def _misbehaving(scene: Scene, _: Hands) -> Iterator[Felt]:
    receiver, before = scene.system.receiver, scene.system.receiver.spoilt
    receiver.manner = scene.random.choice(_MANNERS)
    yield lambda: receiver.spoilt > before
    scene.system.receiver.manner = None


def _process(name: str, *points: str) -> dict[str, Fault]:
    crashes = {f"killed at {point}*": partial(_crashing, point) for point in points}
    return {
        "killed": partial(_killed, name),
        "terminated": partial(_terminated, name),
        "frozen": partial(_frozen, name),
        **crashes,
    }


def _part(name: str) -> dict[str, Fault]:
    return {"away": partial(_away, name), "frozen": partial(_frozen, name)}


#: those on which others wait stand behind those who wait
FAULTS: Mapping[str, Mapping[str, Fault]] = {
    "api": _process("api", "api.", "gate.fill"),
    "issuer": {
        **_process("issuer", "issuer.", "dead_letters.stored", "dead_letters.confirmed"),
        "another joins": _joined,
    },
    "worker": _process(
        "worker", "retry.", "dead_letters.claimed", "dead_letters.acknowledged", "notices.", "gate.synced"
    ),
    "beat": _process("beat"),
    "receiver": {"misbehaves": _misbehaving},
    "kafka": _part("kafka"),
    "postgres": {**_part("postgres"), "a backend killed": _backend_killed},
    "valkey": {**_part("valkey"), "emptied": _emptied},
}


class Storm:
    """Periods of faults, all by the row's own chances."""

    def __init__(self, scene: Scene, hands: Hands) -> None:
        #: what happened, a line each, and what did not: its target was down already, or never felt it
        self.happened: list[str] = []
        self.left_out: list[str] = []
        self._scene = scene
        self._hands = hands

    @contextmanager
    def period(self) -> Iterator[None]:
        """Up to three targets suffer while the block lasts, or none."""
        chosen = self._scene.random.sample(list(FAULTS), self._scene.random.choice(_AT_ONCE))
        with ExitStack() as suffering:
            for target in sorted(chosen, key=list(FAULTS).index):
                name, fault = self._scene.random.choice(list(FAULTS[target].items()))
                self._begin(suffering, target, name, fault)
            yield

    def _begin(self, suffering: ExitStack, target: str, name: str, fault: Fault) -> None:
        """A target that is down already, by what came before, is left alone."""
        self._hands.breaks(target)
        try:
            suffering.enter_context(self._watched(f"{target}: {name}", fault(self._scene, self._hands)))
        except StackError as down:
            self.left_out.append(f"{target}: {down}")

    @contextmanager
    def _watched(self, what: str, fault: AbstractContextManager[Felt | None]) -> Iterator[None]:
        """Writes down at its end whether the fault happened."""
        with fault as felt:
            yield
            (self.happened if felt is None or felt() else self.left_out).append(what)
