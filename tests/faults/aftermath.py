"""What must be true once a row is over: everything final, nothing contradicted, everybody told, nobody restarted."""

from collections import Counter
from collections.abc import Mapping

from sqlalchemy import text

from tests.faults.hands import Hands
from tests.faults.ledger import Invariant
from tests.faults.scene import Scene
from tests.system import System

_DECIDED = text("SELECT request_id, state FROM requests WHERE state IN ('issued', 'refused', 'dead')")
#: a request that was replayed has been told of twice
_ONCE_DEAD = text("SELECT request_id, 'dead' AS state FROM dead_letters WHERE state = 'replayed'")


def running(system: System) -> dict[str, int]:
    """The process id of every part."""
    return {name: system.stack.pid(name) for name in system.stack.names}


def check(scene: Scene, hands: Hands, before: Mapping[str, int]) -> None:
    """Waits until all is decided, then checks everything; raises Violated at the first promise that was broken."""
    system = scene.system
    system.begin()
    system.settle(scene.settled_within_seconds)
    _spared(scene, hands, before)
    with system.store.begin() as tx:
        decided = {(row.request_id, row.state) for row in tx.execute(_DECIDED)}
        once_dead = {(row.request_id, row.state) for row in tx.execute(_ONCE_DEAD)}
    _sum(scene, dict(decided))
    _told(scene, decided, once_dead)
    for proven in system.proof():
        scene.ledger.check(Invariant[proven.promise], proven.ok, proven)


def _sum(scene: Scene, state_of: Mapping[str, str]) -> None:
    accepted = {told.request_id for told in scene.system.history[scene.first_told :] if told.outcome == "accepted"}
    ended = Counter(state_of.get(request_id or "", "lost") for request_id in accepted)
    kept = ended["issued"] + ended["refused"] + ended["dead"] == len(accepted)
    scene.ledger.check(Invariant.SUM, kept, f"{len(accepted)} accepted: {dict(ended)}")


def _told(scene: Scene, decided: set[tuple[str, str]], once_dead: set[tuple[str, str]]) -> None:
    told = scene.system.receiver.told
    wrong = {
        "not told": len(decided - told.keys()),
        "told, not decided": len(told.keys() - decided - once_dead),
        "told under two ids": sum(times > 1 for times in told.values()),
        "changed in a repeat": scene.system.receiver.changed,
        "forged": scene.system.receiver.forged,
    }
    scene.ledger.check(Invariant.TOLD, not any(wrong.values()), wrong)


def _spared(scene: Scene, hands: Hands, before: Mapping[str, int]) -> None:
    again = {name for name, pid in running(scene.system).items() if before[name] != pid}
    scene.ledger.check(Invariant.SPARED, again <= hands.victims, f"started again: {again - hands.victims}")
