"""`coupons coupon` and `coupons request`, as an operator runs them."""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from service.domain.coupon import Coupon
from service.resources import user_of_process
from tests.fixtures.commands import Ended, Run
from tests.integration.conftest import Query
from tests.log import Log

_NOON = "2030-01-01T12:00:00Z"


def _printed(ended: Ended) -> Any:
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def _values(ended: Ended) -> dict[str, str]:
    assert ended.returncode == 0, ended.stderr
    return dict(line.split("\t") for line in ended.stdout.splitlines())


def test_a_coupon_is_created_once_for_a_key(run: Run, log_id: int, query: Query) -> None:
    """A repeat with the same key returns the first one; who created it is recorded."""
    del log_id
    arguments = ("coupon", "create", "Noon", "--quantity", 10, "--waitlist", 2, "--opens-at", _NOON)
    made = _printed(run(*arguments, "--idempotency-key", "one", "--json"))
    shown = _values(run(*arguments, "--idempotency-key", "one"))

    assert (made["name"], made["quantity"], made["waitlist"]) == ("Noon", 10, 2)
    assert (made["state"], made["remaining"]) == ("scheduled", 10)
    assert (shown["id"], shown["name"], shown["closes at"]) == (str(made["id"]), "Noon", "-")
    assert shown["opens at"] == "2030-01-01T12:00:00.000Z"
    assert query("SELECT changed_by FROM coupon_changes") == [(user_of_process(),)]


def test_a_coupon_is_changed_and_the_audit_trail_names_the_user(
    run: Run, log_id: int, make_coupon: Callable[..., Coupon], query: Query
) -> None:
    """A pause, the end of it, a close and the archive are changes like those of the API."""
    del log_id
    number = make_coupon().id
    renamed = _values(run("coupon", "change", number, "--name", "Tea", "--quantity", 20, "--closes-at", _NOON))
    states = [_values(run("coupon", verb, number))["state"] for verb in ("pause", "open", "close")]
    archived = _values(run("coupon", "archive", number))
    listed = run("coupon", "list", "--archived", "--name", "TEA").stdout

    assert (renamed["name"], renamed["quantity"], renamed["closes at"]) == ("Tea", "20", "2030-01-01T12:00:00.000Z")
    assert states == ["paused", "open", "closed"]
    assert archived["archived at"] != "-"
    assert listed == f"{number}\tclosed\t20\t0\t0\t0\t20\tTea\n"
    assert query("SELECT version, changed_by FROM coupon_changes WHERE version > 0 ORDER BY 1") == [
        (version, user_of_process()) for version in range(1, 6)
    ]


def test_a_coupon_and_a_request_are_followed_to_their_end(
    run: Run, real_log: Log, make_coupon: Callable[..., Coupon]
) -> None:
    """What has ended is printed once."""
    number = make_coupon(quantity=1).id
    name = real_log.append_request(number, 7)
    real_log.issue()

    coupon, request = run("coupon", "watch", number), run("request", "watch", name)
    history = run("request", "history", name)

    assert coupon.stdout == f"{number}\tsold_out\t1\t1\t0\t0\t0\ta coupon\n"
    assert request.stdout == "issued\t-\t1\n"
    (_, requested, *_), (_, appended, place), (_, decided, result) = (
        (*line.split("\t"), "")[:3] for line in history.stdout.splitlines()
    )
    assert (requested, appended, decided, result) == ("requested", "appended", "decided", "issued as number 1")
    assert place.startswith("partition ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("coupon pause 999999", "There is no coupon 999999.\n"),
        ("request history nonsense", "There is no request nonsense.\n"),
    ],
)
def test_an_unknown_id_is_reported(run: Run, log_id: int, arguments: str, message: str) -> None:
    """One message on standard error, no stack trace, and status 2."""
    del log_id
    ended = run(*arguments.split())

    assert (ended.returncode, ended.stdout, ended.stderr) == (2, "", message)


@pytest.mark.parametrize("arguments", ["verify", "coupon export {coupon}"])
def test_a_reader_that_closes_the_pipe_ends_a_command_quietly(
    command_environment: Mapping[str, str], real_log: Log, make_coupon: Callable[..., Coupon], arguments: str
) -> None:
    """The status is that of the command, and nothing is printed about the pipe."""
    number = make_coupon(quantity=1).id
    real_log.append_request(number, 7)
    real_log.issue()
    command = f"{sys.executable} -m service.cli {arguments.format(coupon=number)} | true; echo ${{PIPESTATUS[0]}}"
    ended = subprocess.run(
        ["bash", "-c", command], env=command_environment, capture_output=True, text=True, timeout=60, check=False
    )

    assert (ended.stdout, ended.stderr) == ("0\n", "")


def test_a_broken_promise_is_told_by_the_status_of_a_command_that_nobody_reads(
    command_environment: Mapping[str, str], real_log: Log, make_coupon: Callable[..., Coupon], query: Query
) -> None:
    real_log.append_request(make_coupon(quantity=1).id, 7)
    real_log.issue()
    query("UPDATE offsets SET next_offset = next_offset + 1 RETURNING 1")
    command = f"{sys.executable} -m service.cli verify | true; echo ${{PIPESTATUS[0]}}"
    ended = subprocess.run(
        ["bash", "-c", command], env=command_environment, capture_output=True, text=True, timeout=60, check=False
    )

    assert (ended.stdout, ended.stderr) == ("1\n", "")
