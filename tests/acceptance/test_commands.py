"""The console script as an operator runs it: its output and its exit status."""

import errno
import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from confluent_kafka import Producer

from service.domain.request_id import fingerprint
from service.resources import user_of_process
from service.stream.topics import Topic
from tests.acceptance.test_changes import accepted, change, overwritten_request_id, refused
from tests.acceptance.test_dead_letters import make_dead, only_dead_letter
from tests.system import System

_ROOT = Path(__file__).resolve().parents[2]
Ended = subprocess.CompletedProcess[str]


def test_verify_checks_one_coupon(system: System) -> None:
    """P1-P5: status 0 and the numbers of every promise, as rows or JSON; status 1 when one is broken."""
    coupon = system.make_coupon(quantity=2)
    names = [accepted(system, coupon, user) for user in (1, 2)]
    for name in names:
        system.wait_until_final(name)

    printed = parsed(coupons(system, "verify", "--coupon", str(coupon), "--json"))
    with overwritten_request_id(system, names[0]):
        broken = coupons(system, "verify", "--coupon", str(coupon))

    assert printed["ok"] is True
    assert {check["promise"] for check in printed["checks"] if check["ok"]} == {"P1", "P2", "P3", "P4", "P5"}
    assert [check["numbers"]["issued"] for check in printed["checks"] if check["promise"] == "P1"] == [2]
    assert broken.returncode == 1
    (row,) = [row for row in rows(broken) if row[2] != "ok"]
    assert row[:3] == ["P4", "nothing lost in the log", "BROKEN"]
    assert row[3].startswith("records 2, ")
    assert row[3].endswith(" lost 0, phantom 0, contradicted 1")


def test_a_terminal_gets_tables_with_headers(system: System) -> None:
    """On a terminal: headers, marks, every number of a check, and a dead letter on one line that fits."""
    coupon = system.make_coupon(quantity=1)
    make_dead(system, coupon, 7)
    dead_letter = only_dead_letter(system, coupon)

    status, verified = on_terminal(system, "verify", "--coupon", str(coupon))
    listed = on_terminal(system, "dead-letters", "list", "--coupon", str(coupon)).lines
    piped = rows(coupons(system, "verify", "--coupon", str(coupon)))

    assert status == 0
    assert verified[0].split() == ["Promise", "Check", "Result", "Numbers"]
    assert sum("✓ ok" in line for line in verified) == len(piped) >= 5
    whole = " ".join(" ".join(verified).split())
    assert all(number in whole for row in piped for number in row[3].split(", "))
    assert listed[0].split() == ["Id", "State", "Code", "Partition/Offset", "Request", "Last", "error"]
    assert listed[2].split()[:3] == [str(dead_letter), "new", "exhausted"]
    assert listed[2].endswith("…")
    assert len(listed) == 3
    assert max(map(len, [*verified, *listed])) <= 80


def test_verify_compares_the_history_of_clients(system: System, tmp_path: Path) -> None:
    """P5: a receipt that is not in the log breaks the promise; an unreadable history ends with status 2."""
    coupon = system.make_coupon(quantity=1)
    answer = {"user_id": 1, "coupon_id": coupon, "outcome": "accepted", "request_id": accepted(system, coupon, 1)}
    history = tmp_path / "history.jsonl"

    def verified(line: str) -> Ended:
        history.write_text(line)
        return coupons(system, "verify", "--coupon", str(coupon), "--history", str(history))

    assert verified(json.dumps(answer)).returncode == 0
    assert verified(json.dumps(answer | {"user_id": 2})).returncode == 1
    unreadable = verified("{}")
    assert (unreadable.returncode, unreadable.stdout) == (2, "")
    assert unreadable.stderr.startswith(f"{history}, line 1: ")


def test_dead_letters_are_listed_shown_and_replayed(system: System) -> None:
    """P4: a row each, the details of one, the result of a dry run and of a replay; a repeat has the same result."""
    coupon = system.make_coupon(quantity=1)
    (name,) = make_dead(system, coupon, 7)
    dead_letter = only_dead_letter(system, coupon)
    change(system, coupon, quantity=2)

    listed = coupons(system, "dead-letters", "list", "--coupon", str(coupon))
    shown = coupons(system, "dead-letters", "show", str(dead_letter))
    dry = coupons(system, "dead-letters", "replay", "--coupon", str(coupon), "--dry-run")
    one = coupons(system, "dead-letters", "replay", str(dead_letter), "--dry-run")
    before = system.read_status(name)["state"]
    done = [parsed(coupons(system, "dead-letters", "replay", str(dead_letter), "--json")) for _ in range(2)]

    (row,) = rows(listed)
    assert row[:3] == [str(dead_letter), "new", "exhausted"]
    assert row[4:] == [f"coupon {coupon} user 7", "psycopg.errors.DivisionByZero: an injected fault"]
    assert f'"userId":7,"couponId":{coupon}' in shown.stdout
    assert (dry.stdout, one.stdout, before) == (*[f"{dead_letter}\tissued\n"] * 2, "dead")
    assert done[0] == done[1]
    assert [(result["dead_letter_id"], result["state"]) for result in done[0]["replayed"]] == [(dead_letter, "issued")]
    assert system.read_status(name)["state"] == "issued"
    system.eventually(lambda: set(system.receiver.states(name)) == {"dead", "issued"})
    after = parsed(coupons(system, "dead-letters", "show", str(dead_letter), "--json"))
    assert (after["dead_letter"]["state"], after["actions"][0]["acted_by"]) == ("replayed", user_of_process())


def test_a_foreign_dead_letter_cannot_control_a_terminal(system: System) -> None:
    """Its bytes and its headers reach neither the log nor the output of a command unescaped."""
    evil = b"\x1b]0;owned\x07\x1b[2J\r\x9b\nline"
    producer = Producer({"bootstrap.servers": system.stack.kafka_bootstrap_servers})
    headers = [("kafka_dlt-exception-fqcn", evil), ("kafka_dlt-exception-message", evil.decode("latin-1").encode())]
    producer.produce(Topic.DEAD_LETTERS, evil, b"1", headers=headers)  # type: ignore[arg-type]
    assert producer.flush(10) == 0
    log = system.stack.directory / "log" / "issuer.log"
    (logged,) = system.eventually(lambda: [line for line in log.read_bytes().splitlines() if b"owned" in line])

    listed = coupons(system, "dead-letters", "list", "--limit", "1")
    dead_letter = rows(listed)[0][0]
    shown = [
        coupons(system, "dead-letters", *line.split()) for line in (f"show {dead_letter}", "list --limit 1 --json")
    ]

    for printed in (logged.decode(), listed.stdout, *(ended.stdout for ended in shown)):
        assert "owned" in printed
        assert printed.replace("\n", "").replace("\t", "").isprintable()
    coupons(system, "dead-letters", "discard", dead_letter)


def test_a_dead_letter_is_discarded(system: System) -> None:
    """P4: the request stays dead, and a later replay ends with status 2 and the reason."""
    coupon = system.make_coupon(quantity=1)
    (name,) = make_dead(system, coupon, 1)
    dead_letter = str(only_dead_letter(system, coupon))

    assert coupons(system, "dead-letters", "discard", dead_letter).stdout == f"{dead_letter} discarded\n"
    ended = coupons(system, "dead-letters", "replay", dead_letter)

    assert (ended.returncode, ended.stderr) == (2, "The dead letter has been discarded.\n")
    assert system.read_status(name)["state"] == "dead"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("dead-letters show 999999", "There is no dead letter 999999."),
        ("dead-letters replay 999999", "There is no dead letter 999999."),
        ("verify --coupon 999999", "There is no coupon 999999."),
        ("coupon report 999999", "There is no coupon 999999."),
        ("coupon export 999999", "There is no coupon 999999."),
        ("gate repair --coupon 999999", "There is no coupon 999999."),
    ],
)
def test_an_unknown_id_is_reported(system: System, arguments: str, message: str) -> None:
    """An unknown id ends with one sentence, no stack trace and status 2."""
    ended = coupons(system, *arguments.split())

    assert (ended.returncode, ended.stdout, ended.stderr) == (2, "", f"{message}\n")


def test_the_gate_is_repaired(system: System) -> None:
    """P6: after something else wrote to Redis, the gate is filled again, including the seats."""
    coupon = system.make_coupon(quantity=2)
    name = accepted(system, coupon, 1)
    system.wait_until_final(name)
    system.redis.hset(f"gate:{coupon}", "override", "closed")
    system.redis.delete(f"gate:{coupon}:seats")
    system.redis.hset("gate:progress", mapping={"0": "abc", "abc": "0"})
    assert refused(system, coupon, 2) == "closed"

    ended = coupons(system, "gate", "repair", "--coupon", str(coupon))

    assert (ended.returncode, ended.stdout) == (0, f"progress of the partitions: published\ncoupon {coupon}: filled\n")
    assert all(part.isdigit() for pair in system.redis.hgetall("gate:progress").items() for part in pair)
    assert refused(system, coupon, 1) == "duplicate"
    assert system.wait_until_final(accepted(system, coupon, 2))["sequence"] == 2
    assert refused(system, coupon, 3) == "sold_out"


def test_the_keys_of_request_ids_are_listed_and_kept_while_they_are_used(system: System) -> None:
    """A key is shown by its fingerprint only; one that signs has no end, one with uses is not removed."""
    key = system.stack.environment["REQUEST_ID_KEYS"]
    system.wait_until_final(accepted(system, system.make_coupon(quantity=1), 1))

    listed = coupons(system, "request-id-keys", "list")
    removed = coupons(system, "request-id-keys", "remove", fingerprint(key.encode()))
    ended = coupons(system, "request-id-keys", "end", fingerprint(key.encode()))

    assert [(row[0], row[1][:11], row[2]) for row in rows(listed)] == [
        (fingerprint(key.encode()), "signs since", "signs")
    ]
    assert key not in listed.stdout
    assert removed.returncode == 2
    assert "requests have an id that no other key of REQUEST_ID_KEYS verifies" in removed.stderr
    assert ended.returncode == 2
    assert "REQUEST_ID_KEYS here still signs with" in ended.stderr


def coupons(system: System, *arguments: str) -> Ended:
    """Run the console script with the environment that `make up` prints for a shell."""
    return subprocess.run(
        [sys.executable, "-m", "service.cli", *arguments],
        env=system.stack.environment,
        cwd=_ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def parsed(ended: Ended) -> dict[str, Any]:
    """Return the JSON that a successful command printed."""
    assert ended.returncode == 0, ended.stderr
    return dict(json.loads(ended.stdout))


def rows(ended: Ended) -> list[list[str]]:
    """Split what a command printed to a pipe into its rows and cells."""
    return [line.split("\t") for line in ended.stdout.splitlines()]


class Shown(NamedTuple):
    """The exit status of a command and the lines on its terminal, without styles and blank lines."""

    status: int
    lines: list[str]


def on_terminal(system: System, *arguments: str) -> Shown:
    """Run the console script on a pseudo-terminal of 80 columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "service.cli", *arguments],
        env=system.stack.environment | {"TERM": "xterm"},
        cwd=_ROOT,
        stdin=theirs,
        stdout=theirs,
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs)
    output = bytearray()
    try:
        while data := os.read(ours, 65_536):
            output += data
    except OSError as error:
        if error.errno != errno.EIO:  # Linux: the last process has closed the terminal
            raise
    finally:
        os.close(ours)
    text = re.sub(r"\x1b\[[0-9;]*m", "", output.decode())
    return Shown(process.wait(60), [line.rstrip() for line in text.splitlines() if line.strip()])
