"""`coupons coupon report` and `coupons coupon export`, as an operator runs them."""

import csv
import json
from collections.abc import Callable

import pytest

from service.domain.coupon import Coupon
from tests.fixtures.commands import Run
from tests.log import Log


@pytest.fixture
def sold(real_log: Log, make_coupon: Callable[..., Coupon]) -> int:
    """The id of a coupon for one of two users."""
    coupon = make_coupon(quantity=1)
    for user in (1, 2):
        real_log.append_request(coupon.id, user)
    real_log.issue()
    return coupon.id


def test_a_report_is_printed_as_rows_or_json(run: Run, sold: int) -> None:
    rows = dict(line.split("\t") for line in run("coupon", "report", sold).stdout.splitlines())
    printed = json.loads(run("coupon", "report", sold, "--json").stdout)

    assert rows["coupon"] == f"{sold}: a coupon"
    assert (rows["accepted"], rows["issued"], rows["refused, sold_out"]) == ("2", "1", "1")
    assert rows["sold out"].startswith("at ")
    assert rows["wait"].startswith("p50 ")
    assert (printed["counts"]["issued"], printed["counts"]["refused"]) == (1, {"sold_out": 1})
    assert printed["series"]["points"]


def test_an_export_is_written_to_standard_output(run: Run, sold: int) -> None:
    """CSV unless another form is asked for."""
    header, *rows = csv.reader(run("coupon", "export", sold).stdout.splitlines())
    (issued,) = run("coupon", "export", sold, "--format", "jsonl", "--state", "issued").stdout.splitlines()
    as_json = run("coupon", "export", sold, "--json").stdout.splitlines()

    assert [dict(zip(header, row, strict=True))["state"] for row in rows] == ["issued", "refused"]
    assert json.loads(issued)["user_id"] == 1
    assert as_json[0] == issued
    assert len(as_json) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("coupon", "report", 999_999), "There is no coupon 999999."),
        (("coupon", "export", 999_999), "There is no coupon 999999."),
        (("coupon", "export", 1, "--state", "queued"), "A request in state queued is not decided"),
        (("coupon", "export", 1, "--format", "xml"), "'xml' is not one of"),
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
