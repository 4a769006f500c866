"""The random storm: the faults of each target, chosen at random, several at a time."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from os import kill
from signal import SIGKILL

from service.crash_points import CrashPoint
from stack.errors import StackError
from tests.faults import receiver_faults
from tests.faults.fault_injection import FaultInjector
from tests.faults.scenario import Scenario

Occurred = Callable[[], object]
"""Whether a fault occurred, called at its end; None if the fault has checked that itself."""
Fault = Callable[[Scenario, FaultInjector], AbstractContextManager[Occurred | None]]
_BACKEND = "SELECT pid FROM pg_stat_activity WHERE application_name IN ('api', 'issuer', 'worker') LIMIT 1"
_RECEIVER_FAULTS = (
    receiver_faults.error,
    receiver_faults.too_many,
    receiver_faults.redirect,
    receiver_faults.hang,
    receiver_faults.dribble,
    receiver_faults.half,
)
_SIMULTANEOUS_FAULTS = (0, 1, 2, 3)


@contextmanager
def _killed(name: str, _: Scenario, faults: FaultInjector) -> Iterator[None]:
    faults.kill(name)
    yield


@contextmanager
def _terminated(name: str, _: Scenario, faults: FaultInjector) -> Iterator[Occurred]:
    process = faults.terminate(name)
    yield lambda: not process.is_running()


def _frozen(name: str, _: Scenario, faults: FaultInjector) -> AbstractContextManager[None]:
    return faults.frozen(name)


def _unavailable(name: str, _: Scenario, faults: FaultInjector) -> AbstractContextManager[None]:
    return faults.unavailable(name)


@contextmanager
def _crashing(prefix: str, scenario: Scenario, faults: FaultInjector) -> Iterator[Occurred]:
    """Kill the process at a random crash point with this prefix, if it reaches the point."""
    armed = faults.arm(scenario.random.choice([point for point in CrashPoint if point.startswith(prefix)]))
    yield lambda: not armed.exists()
    faults.disarm(armed)


@contextmanager
def _emptied(scenario: Scenario, _: FaultInjector) -> Iterator[Occurred]:
    keys_before = scenario.system.redis.dbsize()
    scenario.system.redis.flushall()
    yield lambda: keys_before


@contextmanager
def _backend_killed(scenario: Scenario, _: FaultInjector) -> Iterator[Occurred]:
    backend = scenario.system.count(_BACKEND)
    kill(backend, SIGKILL)
    yield lambda: f"PID {backend}) was terminated by signal 9" in scenario.process_log("postgres")


@contextmanager
def _issuer_joins(scenario: Scenario, _: FaultInjector) -> Iterator[None]:
    """Another issuer joins the group and leaves it."""
    name = f"extra-issuer-{scenario.random.randrange(10**9)}"
    scenario.stack.add_issuer(name)
    yield
    scenario.stack.stop(name)


@contextmanager
def _receiver_fails(scenario: Scenario, _: FaultInjector) -> Iterator[Occurred]:
    receiver, before = scenario.system.receiver, scenario.system.receiver.misbehaved
    receiver.misbehave = scenario.random.choice(_RECEIVER_FAULTS)
    yield lambda: receiver.misbehaved > before
    scenario.system.receiver.misbehave = None


def _process_faults(name: str, *points: str) -> dict[str, Fault]:
    crashes = {f"killed at {point}*": partial(_crashing, point) for point in points}
    return {
        "killed": partial(_killed, name),
        "terminated": partial(_terminated, name),
        "frozen": partial(_frozen, name),
        **crashes,
    }


def _server_faults(name: str) -> dict[str, Fault]:
    return {"unavailable": partial(_unavailable, name), "frozen": partial(_frozen, name)}


#: in order of dependency: clients first, the servers that they wait for last
FAULTS: Mapping[str, Mapping[str, Fault]] = {
    "api": _process_faults("api", "api.", "gate.fill"),
    "issuer": {
        **_process_faults("issuer", "issuer.", "dead_letters.stored", "dead_letters.confirmed"),
        "another joins": _issuer_joins,
    },
    "worker": _process_faults(
        "worker", "retry.", "dead_letters.claimed", "dead_letters.acknowledged", "notices.", "gate.synced"
    ),
    "beat": _process_faults("beat"),
    "receiver": {"misbehaves": _receiver_fails},
    "kafka": _server_faults("kafka"),
    "postgres": {**_server_faults("postgres"), "a backend killed": _backend_killed},
    "valkey": {**_server_faults("valkey"), "emptied": _emptied},
}


class Storm:
    """Periods of random faults, chosen with the row's random numbers."""

    def __init__(self, scenario: Scenario, faults: FaultInjector) -> None:
        #: one line per fault that occurred
        self.occurred: list[str] = []
        #: one line per fault that did not: its target was down already, or the fault had no effect
        self.skipped: list[str] = []
        self._scenario = scenario
        self._faults = faults

    @contextmanager
    def period(self) -> Iterator[None]:
        """Inject faults into zero to three targets during the block."""
        count = self._scenario.random.choice(_SIMULTANEOUS_FAULTS)
        chosen = self._scenario.random.sample(list(FAULTS), count)
        with ExitStack() as active:
            for target in sorted(chosen, key=list(FAULTS).index):
                name, fault = self._scenario.random.choice(list(FAULTS[target].items()))
                self._faults.allow_restart(target)
                try:
                    active.enter_context(self._recorded(f"{target}: {name}", fault(self._scenario, self._faults)))
                except StackError as down:  # an earlier fault has ended the target: leave it alone
                    self.skipped.append(f"{target}: {down}")
            yield

    @contextmanager
    def _recorded(self, what: str, fault: AbstractContextManager[Occurred | None]) -> Iterator[None]:
        """Record at the end of the fault whether it occurred."""
        with fault as occurred:
            yield
            (self.occurred if occurred is None or occurred() else self.skipped).append(what)
