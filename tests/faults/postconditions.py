"""Checks after each row: all requests final, all notices delivered, no unrelated restart, promises proven."""

from collections import Counter
from collections.abc import Mapping

from sqlalchemy import text

from tests.faults.fault_injection import FaultInjector
from tests.faults.invariants import Invariant
from tests.faults.scenario import Scenario
from tests.system import System

_DECIDED = text("SELECT request_id, state FROM requests WHERE state IN ('issued', 'refused', 'dead')")
#: a replayed request has two notices: one that it is dead, one with its new state
_REPLAYED = text("SELECT request_id, 'dead' AS state FROM dead_letters WHERE state = 'replayed'")


def process_ids(system: System) -> dict[str, int]:
    """Return the process id of every part of the stack."""
    return {name: system.stack.pid(name) for name in system.stack.names}


def check(scenario: Scenario, faults: FaultInjector, process_ids_before: Mapping[str, int]) -> None:
    """Wait until every request is decided, then check every invariant.

    Raises InvariantViolated at the first invariant that does not hold.
    """
    system = scenario.system
    system.wait_until_ready()
    system.wait_until_idle(scenario.completion_timeout_seconds)
    restarted = {name for name, pid in process_ids(system).items() if process_ids_before[name] != pid}
    unexpected = restarted - faults.may_restart
    scenario.checker.check(Invariant.NO_OTHER_RESTART, not unexpected, f"restarted: {unexpected}")
    with system.store.begin() as tx:
        decided = {(row.request_id, row.state) for row in tx.execute(_DECIDED)}
        replayed = {(row.request_id, row.state) for row in tx.execute(_REPLAYED)}
    _check_accepted(scenario, dict(decided))
    _check_notices(scenario, decided, replayed)
    for proven in system.verify():
        scenario.checker.check(Invariant[proven.promise], proven.ok, proven)


def _check_accepted(scenario: Scenario, state_of: Mapping[str, str]) -> None:
    answers = scenario.system.history[scenario.first_answer :]
    accepted = {answer.request_id for answer in answers if answer.outcome == "accepted"}
    states = Counter(state_of.get(request_id or "", "lost") for request_id in accepted)
    all_final = states["issued"] + states["refused"] + states["dead"] == len(accepted)
    scenario.checker.check(Invariant.ACCEPTED_ALL_FINAL, all_final, f"{len(accepted)} accepted: {dict(states)}")


def _check_notices(scenario: Scenario, decided: set[tuple[str, str]], replayed: set[tuple[str, str]]) -> None:
    receiver = scenario.system.receiver
    wrong = {
        "decided, in no notice": len(decided - receiver.decisions.keys()),
        "notice, not decided": len(receiver.decisions.keys() - decided - replayed),
        "more than one webhook-id": sum(times > 1 for times in receiver.decisions.values()),
        "repeat with other content": receiver.changed_repeats,
        "bad signature": receiver.forged,
    }
    scenario.checker.check(Invariant.NOTICES_DELIVERED, not any(wrong.values()), wrong)
