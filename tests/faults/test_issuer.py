"""The issuer dies, freezes and moves: what it decided stays, what it did not is decided by its successor."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest

from service.crash_points import CrashPoint
from service.stream import clients
from service.stream.topics import Topic
from tests.faults.hands import Hands
from tests.faults.rows import row
from tests.faults.scene import Scene

#: a frozen issuer's locks end after 5 seconds and its membership after 6
_TAKEN_OVER_SECONDS = 15.0
_MAX_POLL_SECONDS = 32.0
_STALE = (
    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'issuer' AND state = 'idle in transaction'"
    " AND now() - state_change > '5.5 seconds'"
)
_BLOCKED = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'issuer' AND wait_event_type = 'Lock'"
#: what an issuer says whose transaction was ended, or whose partitions another has moved
_DROPPED = ("issuing is paused", "dropped: ")


@row(5, "issuer", "kill -9 before COMMIT", seconds=12)
@pytest.mark.parametrize("point", [CrashPoint.ISSUER_LOCKED, CrashPoint.ISSUER_WRITTEN])
def test_killed_before_commit(scene: Scene, hands: Hands, point: CrashPoint) -> None:
    """Nothing of the poll has happened; its successor reads the same records."""
    with scene.users():
        hands.crash_at(point)
        scene.recovers(since=time.monotonic())


@row(6, "issuer", "kill -9 after COMMIT, before anyone is told", seconds=12)
@pytest.mark.parametrize("point", [CrashPoint.ISSUER_COMMITTED, CrashPoint.ISSUER_PUBLISHED])
def test_killed_after_commit(scene: Scene, hands: Hands, point: CrashPoint) -> None:
    """The database's offset is past the poll: its successor decides nothing twice, and the sweep tells."""
    with scene.users():
        hands.crash_at(point)
        scene.recovers(since=time.monotonic())


@row(7, "issuer", "kill -9 at any moment ×4", seconds=30)
def test_killed_at_any_moment(scene: Scene, hands: Hands) -> None:
    """A poll is whole or has not happened, wherever it is cut."""
    with scene.users(per_second=200, at_once=32):
        for _ in range(4):
            hands.kill("issuer")
            scene.recovers(since=time.monotonic())
            time.sleep(scene.random.random() / 2)  # the moment is what varies


@row(8, "issuer", "frozen between its offset and COMMIT, a second one running", seconds=60)
def test_frozen_in_mid_transaction(scene: Scene, hands: Hands) -> None:
    """The second issues what was the first's while that is still frozen; the first, woken, writes nothing."""
    with another_issuer(scene, "successor"), scene.users():
        hands.crash_at(CrashPoint.ISSUER_WRITTEN, "stop")
        since = time.monotonic()
        zombie = hands.who_is_frozen("issuer", "successor")
        scene.issues_everywhere(since, _TAKEN_OVER_SECONDS)
        scene.demand(scene.system.count(_STALE) == 0, "its transaction was ended")
        time.sleep(max(0.0, since + _MAX_POLL_SECONDS - time.monotonic()))  # frozen past session and poll limit
        hands.bitten(hands.who_is_frozen("issuer", "successor") == zombie, "it is frozen still")
        scene.stack.thaw(zombie)
        scene.system.eventually(lambda: any(words in scene.log(zombie) for words in _DROPPED))
        scene.turns_green("issuer", "successor")


@row(9, "issuer", "rebalance storm: others come, leave and die", seconds=60, within=240)
def test_rebalance_storm(scene: Scene, hands: Hands) -> None:
    """Each partition is decided by one at a time, and none is forgotten."""
    with scene.users():
        for turn in range(5):
            name = f"guest-{turn}"
            with another_issuer(scene, name, leave=scene.random.choice((hands.stop, hands.crash))):
                hands.bitten(scene.had_partitions(name), f"{name} had partitions")
        scene.recovers(since=time.monotonic())


@row(9, "issuer", "another takes its name in the group, and leaves", seconds=25)
def test_fenced_by_its_namesake(scene: Scene, hands: Hands) -> None:
    """Its consumer has failed for good: it is replaced, with the process running on."""
    settings = scene.system.settings.model_copy(update={"issuer_instance": "issuer-0"})
    with scene.users():
        with closing(clients.build_issuer_consumer(settings)) as namesake:
            namesake.subscribe([Topic.ISSUE_COUPON])
            namesake.poll(5)
            scene.turns_red("issuer")
            hands.bitten("Static consumer fenced" in scene.log("issuer"), "it was fenced")
        scene.recovers(since=time.monotonic())


@row(10, "issuer", "SIGTERM in the middle of a poll", seconds=15)
def test_told_to_stop(scene: Scene, hands: Hands) -> None:
    """The poll under way is finished and stays."""
    coupon = scene.system.make_coupon(5)
    with scene.users():
        with scene.locked(coupon):
            request = scene.receipt(coupon, 1)
            scene.system.eventually(lambda: scene.system.count(_BLOCKED))
            ending = hands.terminate("issuer")
        hands.gone(ending)
        decided = scene.system.count("SELECT count(*) FROM requests WHERE request_id = :id", id=request)
        scene.demand(decided == 1, "the poll under way was decided by the one that ended")
        scene.recovers(since=time.monotonic())


@row(11, "issuer", "database away for longer than max.poll.interval", seconds=65, within=180)
def test_database_away_for_long(scene: Scene, hands: Hands) -> None:
    """It keeps its place in the group, spends no attempt and makes no dead letter; it goes on by itself."""
    coupon = scene.system.make_coupon(50)
    with scene.users():
        rebalances = scene.log("issuer").count("revoked")
        scene.system.press(coupon, 50)
        with hands.away("postgres"):
            scene.turns_red("api", "issuer")
            receipts = [scene.receipt(coupon, user) for user in range(1, 21)]
            time.sleep(_MAX_POLL_SECONDS)  # the outage's length is the fault
        scene.recovers(since=time.monotonic())
    pages = [scene.system.final(receipt) for receipt in receipts]
    scene.demand({(page["state"], page["attempts"]) for page in pages} == {("issued", 1)}, pages)
    scene.demand(scene.log("issuer").count("revoked") == rebalances, "it kept its partitions")


@contextmanager
def another_issuer(scene: Scene, name: str, leave: Callable[[str], None] | None = None) -> Iterator[None]:
    """A second issuer that is ready, and leaves at the end of the block."""
    scene.urls[name] = scene.stack.add_issuer(name)
    try:
        yield
    finally:
        (leave or scene.stack.stop)(name)
        del scene.urls[name]
