"""Checks of the demo: `coupons verify` checks the promises; the demo checks the events that it caused."""

import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import msgspec

from demo.operator_api import Replay
from demo.result import SaleResult, Snapshot
from demo.sale import FAILS_ALWAYS, FAILS_ONCE
from demo.stories import ReplayedRequest, held_seats, reassigned_seats, replayed_request

VERIFY_TIMEOUT_SECONDS = 60.0
PROMISES = ("P1", "P2", "P3", "P4", "P5")
#: promise of a check that concerns the verification as a whole
ALL_PROMISES = "P1–P5"
#: promise of the demo's own checks
DEMO = "demo"
#: state and attempts in which a request with an injected fault has to end
EXPECTED_ENDS = {FAILS_ONCE: ("issued", 2), FAILS_ALWAYS: ("dead", 3)}


class Check(msgspec.Struct, frozen=True):
    """A check of a promise, with the numbers that decide it."""

    promise: str
    what: str
    ok: bool
    numbers: dict[str, int]


class _Verification(msgspec.Struct, frozen=True):
    ok: bool
    checks: list[Check]


def verify(environment: Mapping[str, str], history: Path) -> list[Check]:
    """Run `coupons verify` as an operator would; return its checks, or a failed one if the command failed."""
    command = [sys.executable, "-m", "service.cli", "verify", "--history", str(history), "--json"]
    process = subprocess.run(command, env=environment, capture_output=True, timeout=VERIFY_TIMEOUT_SECONDS, check=False)
    return read_verification(process.returncode, process.stdout, process.stderr)


def read_verification(status: int, output: bytes, errors: bytes) -> list[Check]:
    """Return the checks that the command printed; its exit status has to agree with them."""
    try:
        verification = msgspec.json.decode(output, type=_Verification)
    except msgspec.DecodeError:
        last_line = errors.decode(errors="replace").strip().rpartition("\n")[2]
        return [Check(ALL_PROMISES, f"`coupons verify` ended with status {status}: {last_line}", ok=False, numbers={})]
    checks = verification.checks
    if checks and verification.ok == (status == 0) == all(check.ok for check in checks):
        return checks
    what = "`coupons verify` ran checks, and its exit status agrees with them"
    return [*checks, Check(ALL_PROMISES, what, ok=False, numbers={"exit_status": status})]


def demo_checks(result: SaleResult) -> list[Check]:
    """Return the demo's own checks; those of the stories only if requests were made to fail."""
    checks = [_final("all accepted requests are final", result, result.after_sale)]
    if result.after_replay:
        checks.append(_final("all are final again after the replay", result, result.after_replay))
    checks += [_notices(result), _injected_faults(result), _dead_letters(result), _foreign_record(result)]
    if result.faults:
        checks += [_held_seats(result), _reassigned_seats(result), _replay(result)]
    return checks


def _final(what: str, result: SaleResult, snapshot: Snapshot) -> Check:
    without_row = len(result.accepted.keys() - {row.request_id for row in snapshot.rows})
    numbers = {"accepted": len(result.accepted), "without_row": without_row, **snapshot.pending._asdict()}
    return Check(DEMO, what, not (without_row or any(snapshot.pending)), numbers)


def _notices(result: SaleResult) -> Check:
    """Expect each final state in one notice; a replayed request has two final states."""
    delivered = result.receiver.decisions
    rows = [*result.after_sale.rows, *result.final.rows]
    expected = {(row.request_id, row.state) for row in rows if row.decided_at}
    wrong = {
        "missing": len(expected - delivered.keys()),
        "unexpected": len(delivered.keys() - expected),
        "sent_twice": sum(1 for times in delivered.values() if times > 1),
        "forged": result.receiver.forged,
    }
    return Check(
        DEMO, "each decision was sent in one notice", not any(wrong.values()), {"decisions": len(expected)} | wrong
    )


def _injected_faults(result: SaleResult) -> Check:
    rows = result.after_sale.rows
    expected = {
        request_id: EXPECTED_ENDS[fault]
        for request_id, answer in result.accepted.items()
        if (fault := result.faults.get(answer.user_id))
    }
    failed = {row.request_id: (row.state, row.attempts) for row in rows if row.attempts > 1 or row.state == "dead"}
    as_expected = len(expected.items() & failed.items())
    ok = as_expected == len(result.faults) == len(failed)
    numbers = {"made_to_fail": len(result.faults), "failed": len(failed), "as_expected": as_expected}
    return Check(DEMO, "exactly the requests with an injected fault failed", ok, numbers)


def _dead_letters(result: SaleResult) -> Check:
    """Expect the malformed records and the requests that failed always, of which the operator replayed one."""
    exhausted = sum(1 for fault in result.faults.values() if fault == FAILS_ALWAYS)
    replayed = min(1, exhausted)
    expected = Counter({("poison", "new"): result.malformed, ("exhausted", "new"): exhausted - replayed})
    expected["exhausted", "replayed"] = replayed
    letters = Counter((letter.code, letter.state) for letter in result.final.dead_letters)
    numbers = {f"{code}_{state}": number for (code, state), number in sorted(letters.items())}
    return Check(
        DEMO,
        "the dead letters are exactly the malformed records and the requests that always fail",
        letters == expected,
        numbers,
    )


def _foreign_record(result: SaleResult) -> Check:
    rows = result.after_sale.rows
    issued = sum(1 for row in rows if row.user_id == result.foreign_user and row.state == "issued")
    return Check(DEMO, "the Spring producer's record is issued", issued == 1, {"issued": issued})


def _held_seats(result: SaleResult) -> Check:
    stories = held_seats(result)
    numbers = {
        "observed_retrying": len(stories),
        "overtaken_by": stories[0].overtaken_by if stories else 0,
        "sold_out_meanwhile": max((story.sold_out for story in stories), default=0),
    }
    ok = numbers["overtaken_by"] > 0 and not numbers["sold_out_meanwhile"]
    return Check(DEMO, "a request that failed kept its seat", ok, numbers)


def _reassigned_seats(result: SaleResult) -> Check:
    stories = reassigned_seats(result)
    expected = sum(1 for fault in result.faults.values() if fault == FAILS_ALWAYS)
    observed = sum(1 for story in stories if story.status)
    numbers = {"released": expected, "to_the_lowest_on_standby": len(stories), "observed_on_standby": observed}
    return Check(DEMO, "released seats went to standby", len(stories) == expected and observed > 0, numbers)


def _replay(result: SaleResult) -> Check:
    story, replay = replayed_request(result), result.replay
    changed = set(result.after_sale.rows) ^ set(result.final.rows)
    numbers = {
        "would_be_issued": sum(1 for outcome in replay.dry_run_raised if outcome.state == "issued") if replay else 0,
        "rows_changed": len({row.request_id for row in changed}),
        "notices": len(story.notices) if story else 0,
    }
    ok = bool(story and replay and _as_predicted(replay) and _was_issued(story, replay))
    return Check(DEMO, "a replay did what its dry run predicted", ok and numbers["rows_changed"] == 1, numbers)


def _as_predicted(replay: Replay) -> bool:
    """Return whether one seat more changed the first dead letter's outcome to issued, and the replay issued it."""
    refused = {(outcome.state, outcome.code) for outcome in (*replay.dry_run_sold_out, *replay.dry_run_raised[1:])}
    issued = (replay.replayed and replay.replayed.state) == replay.dry_run_raised[0].state == "issued"
    return refused == {("refused", "sold_out")} and issued and not replay.raised.standby


def _was_issued(story: ReplayedRequest, replay: Replay) -> bool:
    """Return whether a dead request was issued the added seat at its next attempt, with a notice for each state."""
    before, after, notices = story
    issued = ("issued", before.attempts + 1, replay.raised.quantity)
    return (
        before.state == "dead"
        and (after.state, after.attempts, after.sequence) == issued
        and notices == ["dead", "issued"]
    )
