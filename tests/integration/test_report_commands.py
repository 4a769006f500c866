"""`coupons report` and `coupons export`, as an operator runs them."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from service.config import Settings
from service.domain.coupon import Coupon
from tests.fixtures.parts import REQUEST_ID_KEYS
from tests.log import Log

Ended = subprocess.CompletedProcess[str]
Run = Callable[..., Ended]


@pytest.fixture
def run(settings: Settings) -> Run:
    """Run a command of the console script: `run("report", 7)`."""
    environment = {
        "PATH": os.environ["PATH"],
        "DATABASE_URL": settings.database_url,
        "KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers,
        "REDIS_URL": settings.redis_url,
        "CELERY_BROKER_URL": settings.celery_broker_url,
        "REQUEST_ID_KEYS": REQUEST_ID_KEYS,
        "AUTH": "off",
    }

    def run(*arguments: object) -> Ended:
        command = (sys.executable, "-m", "service.cli", *map(str, arguments))
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    return run


@pytest.fixture
def sold(real_log: Log, make_coupon: Callable[..., Coupon]) -> int:
    """The id of a coupon for one of two users."""
    coupon = make_coupon(quantity=1)
    for user in (1, 2):
        real_log.append_request(coupon.id, user)
    real_log.issue()
    return coupon.id


def test_a_report_is_printed_as_rows_or_json(run: Run, sold: int) -> None:
    rows = dict(line.split("\t") for line in run("report", sold).stdout.splitlines())
    printed = json.loads(run("report", sold, "--json").stdout)

    assert rows["coupon"] == f"{sold}: a coupon"
    assert (rows["accepted"], rows["issued"], rows["refused, sold_out"]) == ("2", "1", "1")
    assert rows["sold out"].startswith("at ")
    assert rows["wait"].startswith("p50 ")
    assert (printed["counts"]["issued"], printed["counts"]["refused"]) == (1, {"sold_out": 1})
    assert printed["series"]["points"]


def test_an_export_is_written_to_standard_output(run: Run, sold: int) -> None:
    """CSV unless another form is asked for."""
    header, *rows = csv.reader(run("export", sold).stdout.splitlines())
    (issued,) = run("export", sold, "--format", "jsonl", "--state", "issued").stdout.splitlines()

    assert [dict(zip(header, row, strict=True))["state"] for row in rows] == ["issued", "refused"]
    assert json.loads(issued)["user_id"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("report", 999_999), "There is no coupon 999999."),
        (("export", 999_999), "There is no coupon 999999."),
        (("export", 1, "--state", "queued"), "A request in state queued is not decided"),
        (("export", 1, "--format", "xml"), "'xml' is not one of"),
    ],
)
def test_what_cannot_be_done_ends_with_status_2(
    run: Run, log_id: int, arguments: tuple[object, ...], message: str
) -> None:
    del log_id
    ended = run(*arguments)

    assert (ended.returncode, ended.stdout) == (2, "")
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr
