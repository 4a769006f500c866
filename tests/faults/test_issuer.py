"""Tests in which the issuer is killed, frozen or loses partitions.

Committed decisions stay; another issuer makes the remaining ones.
"""

import time
from contextlib import closing

import pytest

from service.crash_points import CrashPoint
from service.log_events import LogEvent
from service.stream import clients
from service.stream.topics import Topic
from tests.faults.extra_processes import extra_issuer
from tests.faults.fault_injection import FaultInjector
from tests.faults.rows import row
from tests.faults.scenario import Scenario

#: a frozen issuer's locks expire after 5 seconds and its group membership after 6
_TAKEN_OVER_SECONDS = 15.0
_MAX_POLL_SECONDS = 32.0
_STALE_TRANSACTIONS = (
    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'issuer' AND state = 'idle in transaction'"
    " AND now() - state_change > '5.5 seconds'"
)
_BLOCKED = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'issuer' AND wait_event_type = 'Lock'"
#: one of these is logged by an issuer whose transaction was ended, or whose partitions another issuer has advanced
_FENCED_EVENTS = (LogEvent.ISSUER_PAUSED, LogEvent.PARTITIONS_FENCED)


@row(5, "issuer", "kill -9 before COMMIT", seconds=12)
@pytest.mark.parametrize("point", [CrashPoint.ISSUER_LOCKED, CrashPoint.ISSUER_WRITTEN])
def test_killed_before_commit(scenario: Scenario, faults: FaultInjector, point: CrashPoint) -> None:
    """The batch is rolled back; the restarted issuer reads the same records."""
    with scenario.under_load():
        faults.crash_at(point)
        scenario.recovers(since=time.monotonic())


@row(6, "issuer", "kill -9 after COMMIT, before messages are sent", seconds=12)
@pytest.mark.parametrize("point", [CrashPoint.ISSUER_COMMITTED, CrashPoint.ISSUER_PUBLISHED])
def test_killed_after_commit(scenario: Scenario, faults: FaultInjector, point: CrashPoint) -> None:
    """The database's offset is past the batch: the restarted issuer decides nothing twice, and the sweep notifies."""
    with scenario.under_load():
        faults.crash_at(point)
        scenario.recovers(since=time.monotonic())


@row(7, "issuer", "kill -9 at random moments ×4", seconds=30)
def test_killed_at_random_moments(scenario: Scenario, faults: FaultInjector) -> None:
    """A batch is either committed or rolled back, wherever it is interrupted."""
    with scenario.under_load(per_second=200, at_once=32):
        for _ in range(4):
            faults.kill("issuer")
            scenario.recovers(since=time.monotonic())
            time.sleep(scenario.random.random() / 2)  # the moment of the kill is what varies


@row(8, "issuer", "frozen between its offset update and COMMIT, with a second issuer running", seconds=60)
def test_frozen_in_mid_transaction(scenario: Scenario, faults: FaultInjector) -> None:
    """The second issuer takes over the frozen one's partitions; the first, thawed, writes nothing."""
    with extra_issuer(scenario, "successor"), scenario.under_load():
        faults.crash_at(CrashPoint.ISSUER_WRITTEN, "stop")
        since = time.monotonic()
        frozen = faults.find_frozen("issuer", "successor")
        scenario.issues_on_every_partition(since, _TAKEN_OVER_SECONDS)
        scenario.check(scenario.system.count(_STALE_TRANSACTIONS) == 0, "its transaction was ended")
        time.sleep(max(0.0, since + _MAX_POLL_SECONDS - time.monotonic()))  # frozen past session and poll limit
        faults.confirm(faults.find_frozen("issuer", "successor") == frozen, "it is still frozen")
        scenario.stack.thaw(frozen)
        scenario.system.eventually(lambda: any(event in scenario.process_log(frozen) for event in _FENCED_EVENTS))
        scenario.becomes_ready("issuer", "successor")


@row(9, "issuer", "repeated rebalances: other issuers join, leave and die", seconds=60, within=240)
def test_repeated_rebalances(scenario: Scenario, faults: FaultInjector) -> None:
    """Each partition is decided by one issuer at a time, and none is left without one."""
    with scenario.under_load():
        for number in range(5):
            name = f"extra-issuer-{number}"
            with extra_issuer(scenario, name, end=scenario.random.choice((faults.stop, faults.crash))):
                faults.confirm(scenario.wait_for_assignment(name), f"{name} had partitions")
        scenario.recovers(since=time.monotonic())


@row(9, "issuer", "another consumer joins with its group.instance.id, and leaves", seconds=25)
def test_fenced_by_the_same_instance_id(scenario: Scenario, faults: FaultInjector) -> None:
    """The fenced consumer cannot recover: the issuer replaces it without a restart of the process."""
    settings = scenario.system.settings.model_copy(update={"issuer_instance": "issuer-0"})
    with scenario.under_load():
        with closing(clients.build_issuer_consumer(settings)) as same_instance:
            same_instance.subscribe([Topic.ISSUE_COUPON])
            same_instance.poll(5)
            scenario.becomes_unready("issuer")
            faults.confirm("Static consumer fenced" in scenario.process_log("issuer"), "it was fenced")
        scenario.recovers(since=time.monotonic())


@row(10, "issuer", "SIGTERM in the middle of a batch", seconds=15)
def test_sigterm_during_a_batch(scenario: Scenario, faults: FaultInjector) -> None:
    """The issuer completes and commits the batch before it exits."""
    coupon = scenario.system.make_coupon(5)
    with scenario.under_load():
        with scenario.coupon_locked(coupon):
            request_id = scenario.submit(coupon, 1)
            scenario.system.eventually(lambda: scenario.system.count(_BLOCKED))
            terminating = faults.terminate("issuer")
        faults.wait_ended(terminating)
        decided = scenario.system.count("SELECT count(*) FROM requests WHERE request_id = :id", id=request_id)
        scenario.check(decided == 1, "the terminated issuer has committed its batch")
        scenario.recovers(since=time.monotonic())


@row(11, "issuer", "database unavailable for longer than max.poll.interval", seconds=65, within=180)
def test_database_unavailable_for_long(scenario: Scenario, faults: FaultInjector) -> None:
    """It stays in the group, counts no attempt, makes no dead letter, and resumes by itself."""
    coupon = scenario.system.make_coupon(50)
    with scenario.under_load():
        revocations = scenario.process_log("issuer").count(LogEvent.PARTITIONS_REVOKED)
        scenario.system.request_until_answered(coupon, 50)
        with faults.unavailable("postgres"):
            scenario.becomes_unready("issuer")
            scenario.becomes_degraded("postgresql")
            request_ids = [scenario.submit(coupon, user) for user in range(1, 21)]
            time.sleep(_MAX_POLL_SECONDS)  # the length of the outage is the fault
        scenario.recovers(since=time.monotonic())
    pages = [scenario.system.wait_until_final(request_id) for request_id in request_ids]
    scenario.check({(page["state"], page["attempts"]) for page in pages} == {("issued", 1)}, pages)
    kept = scenario.process_log("issuer").count(LogEvent.PARTITIONS_REVOKED) == revocations
    scenario.check(kept, "it kept its partitions")
