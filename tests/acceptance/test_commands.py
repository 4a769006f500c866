"""The console script as an operator runs it: what it prints, and the status it ends with."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.test_changes import accepted, change, refused, rename
from tests.acceptance.test_dead_letters import die, only
from tests.system import System

_ROOT = Path(__file__).resolve().parents[2]
Ended = subprocess.CompletedProcess[str]


def test_verify_proves_one_coupon(system: System) -> None:
    """Step 9: status 0 and every promise with its numbers, in lines or JSON; status 1 for the one that is broken."""
    coupon = system.make_coupon(quantity=2)
    names = [accepted(system, coupon, user) for user in (1, 2)]
    for name in names:
        system.final(name)

    told = parsed(coupons(system, "verify", "--coupon", str(coupon), "--json"))
    rename(system, names[0], "another")
    try:
        broken = coupons(system, "verify", "--coupon", str(coupon))
    finally:
        rename(system, "another", names[0])

    assert told["ok"] is True
    assert {check["promise"] for check in told["checks"] if check["ok"]} == {"P1", "P2", "P3", "P4", "P5"}
    assert [check["numbers"]["issued"] for check in told["checks"] if check["promise"] == "P1"] == [2]
    assert broken.returncode == 1
    (line,) = [line for line in broken.stdout.splitlines() if not line.startswith("ok ")]
    assert line.startswith("BROKEN P4 nothing lost in the log: records 2, ")
    assert line.endswith(" lost 0, phantom 0, contradicted 1")


def test_verify_holds_clients_to_what_they_wrote_down(system: System, tmp_path: Path) -> None:
    """Step 9: a receipt that is not in the log is a broken promise; a history that cannot be read is none."""
    coupon = system.make_coupon(quantity=1)
    told = {"user_id": 1, "coupon_id": coupon, "outcome": "accepted", "request_id": accepted(system, coupon, 1)}
    history = tmp_path / "history.jsonl"

    def verified(line: str) -> Ended:
        history.write_text(line)
        return coupons(system, "verify", "--coupon", str(coupon), "--history", str(history))

    assert verified(json.dumps(told)).returncode == 0
    assert verified(json.dumps(told | {"user_id": 2})).returncode == 1
    unreadable = verified("{}")
    assert (unreadable.returncode, unreadable.stdout) == (2, "")
    assert unreadable.stderr.startswith(f"{history}, line 1: ")


def test_dead_letters_are_found_shown_and_brought_back(system: System) -> None:
    """Step 7: a line each, all of one, what a replay would do and what it did; a repeat says the same."""
    coupon = system.make_coupon(quantity=1)
    (name,) = die(system, coupon, 7)
    letter = only(system, coupon)
    change(system, coupon, quantity=2)

    listed = coupons(system, "dead-letters", "list", "--coupon", str(coupon))
    shown = coupons(system, "dead-letters", "show", str(letter))
    dry = coupons(system, "dead-letters", "replay", "--coupon", str(coupon), "--dry-run")
    before = system.standing(name)["state"]
    done = [parsed(coupons(system, "dead-letters", "replay", str(letter), "--json")) for _ in range(2)]

    (line,) = listed.stdout.splitlines()
    assert line.split("\t")[:3] == [str(letter), "new", "exhausted"]
    assert line.endswith(f"coupon {coupon} user 7\tpsycopg.errors.DivisionByZero: a fault on demand")
    assert f'"userId":7,"couponId":{coupon}' in shown.stdout
    assert (dry.stdout, before) == (f"{letter}\tissued\n", "dead")
    assert done[0] == done[1]
    assert [(one["letter_id"], one["state"]) for one in done[0]["replayed"]] == [(letter, "issued")]
    assert system.standing(name)["state"] == "issued"
    system.eventually(lambda: system.receiver.states(name) == {"dead", "issued"})
    after = parsed(coupons(system, "dead-letters", "show", str(letter), "--json"))
    assert (after["letter"]["state"], after["actions"][0]["via"]) == ("replayed", "cli")


def test_a_dead_letter_is_put_away(system: System) -> None:
    """Step 7: the request stays dead, and what cannot be done afterwards is said with status 2."""
    coupon = system.make_coupon(quantity=1)
    (name,) = die(system, coupon, 1)
    letter = str(only(system, coupon))

    assert coupons(system, "dead-letters", "discard", letter).stdout == f"{letter} discarded\n"
    ended = coupons(system, "dead-letters", "replay", letter)

    assert (ended.returncode, ended.stderr) == (2, "the dead letter has been discarded\n")
    assert system.standing(name)["state"] == "dead"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("dead-letters show 999999", "there is no dead letter 999999"),
        ("dead-letters replay 999999", "there is no dead letter 999999"),
        ("verify --coupon 999999", "there is no coupon 999999"),
        ("gate repair --coupon 999999", "there is no coupon 999999"),
    ],
)
def test_what_is_not_there_is_said(system: System, arguments: str, said: str) -> None:
    """An id that was never given: one sentence, no stack trace, status 2."""
    ended = coupons(system, *arguments.split())

    assert (ended.returncode, ended.stdout, ended.stderr) == (2, "", f"{said}\n")


def test_the_gate_is_repaired(system: System) -> None:
    """P6: someone wrote to Redis behind the service's back; the gate is filled anew, seats included."""
    coupon = system.make_coupon(quantity=2)
    name = accepted(system, coupon, 1)
    system.final(name)
    system.redis.hset(f"gate:{coupon}", "override", "closed")
    system.redis.delete(f"gate:{coupon}:seats")
    assert refused(system, coupon, 2) == "closed"

    ended = coupons(system, "gate", "repair", "--coupon", str(coupon))

    assert (ended.returncode, ended.stdout) == (0, f"coupon {coupon}: filled\n")
    assert refused(system, coupon, 1) == "duplicate"
    assert system.final(accepted(system, coupon, 2))["sequence"] == 2
    assert refused(system, coupon, 3) == "sold_out"


def coupons(system: System, *arguments: str) -> Ended:
    """Runs the console script with the addresses that `make up` writes down for a shell."""
    return subprocess.run(
        [Path(sys.executable).with_name("coupons"), *arguments],
        env=system.stack.environment,
        cwd=_ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def parsed(ended: Ended) -> dict[str, Any]:
    """What a command that went well printed as JSON."""
    assert ended.returncode == 0, ended.stderr
    return dict(json.loads(ended.stdout))
