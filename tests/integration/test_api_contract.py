"""The API keeps what its OpenAPI document says: schemathesis sends generated requests of callers of each kind."""

import json
import os
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from openapi_spec_validator import validate

from service.domain.api_key import NewKey
from service.domain.caller import Role
from service.domain.coupon import Coupon
from service.usecases.replay import DeadLetterService
from tests.fixtures.callers import bearer, token
from tests.generated_bodies import USER
from tests.integration.conftest import Query, StartSale

_ROOT = Path(__file__).parents[2]
_OF_USERS = {"create_ticket", "list_coupons", "get_coupon", "request_coupon", "get_issuance", "list_user_issuances"}
#: a stream of events, which may last for an hour
_ENDLESS = {"follow_issuance"}
#: what an administrator has no permission for
_OF_USERS_ONLY = {"create_ticket", "request_coupon"}
#: `callers` of the list are tried in order until one is admitted; `peers` must not see each other's requests
_CONFIGURATION = """
hooks = "tests.generated_bodies"
warnings = false
[auth.wfc]
path = "callers.json"
{callers}
[[operations]]
include-operation-id = "change_coupon"
# no tag that is made up is the present one
checks.positive_data_acceptance.expected-statuses = ["2xx", "401", "403", "404", "409", "412"]
[dictionaries]
coupons = {{ values = {coupons} }}
dead_letters = {{ values = {dead_letters} }}
users = {{ values = {users} }}
[parameters]
coupon_id = {{ dictionary = "coupons", probability = 0.9 }}
dead_letter_id = {{ dictionary = "dead_letters", probability = 0.9 }}
user_id = {{ dictionary = "users", probability = 0.9 }}
"""
Answers = Counter[tuple[str, str | None, int]]
SendGenerated = Callable[[str, set[str]], Answers]


@pytest.fixture
def document(api: httpx.Client, keys: dict[Role, NewKey]) -> Any:
    """The OpenAPI document."""
    return api.get("/openapi.json", headers=bearer(keys[Role.READ].text)).json()


@pytest.fixture
def coupons(make_coupon: Callable[..., Coupon]) -> list[int]:
    """Ids of coupons that can be requested."""
    return [make_coupon(quantity=100).id for _ in range(30)]


@pytest.fixture
def dead_letters(
    start_sale: StartSale, exhaust_retries: Callable[[], None], query: Query, dead_letter_service: DeadLetterService
) -> list[int]:
    """Ids of dead letters, new and discarded."""
    start_sale(100, range(1, 41), dict.fromkeys(range(1, 41), "22012 9"))
    exhaust_retries()
    found = [row.id for row in query("SELECT id FROM dead_letters")]
    for number in found[::2]:
        dead_letter_service.discard(number)
    return found


@pytest.fixture
def callers(keys: dict[Role, NewKey]) -> dict[str, str]:
    """Credentials of two users and of two roles of operators, by name."""
    return {
        "a user": token(str(USER), exp=2_000_000_000),
        "another user": token(str(USER + 1), exp=2_000_000_000),
        "a reader": keys[Role.READ].text,
        "an administrator": keys[Role.ADMIN].text,
    }


@pytest.fixture
def send_generated(
    api: httpx.Client,
    document: Any,
    coupons: list[int],
    dead_letters: list[int],
    callers: dict[str, str],
    generated_examples: list[str],
    tmp_path: Path,
) -> SendGenerated:
    """Send requests for some operations, by id; return how many had which operation, caller and status."""
    entries = [
        {"name": name, "fixedHeaders": [{"name": "Authorization", "value": f"Bearer {text}"}]}
        for name, text in callers.items()
    ]
    (tmp_path / "callers.json").write_text(json.dumps({"auth": entries}))
    (tmp_path / "openapi.json").write_text(json.dumps(document))
    command = [
        str(Path(sys.executable).with_name("schemathesis")), "--config-file", "schemathesis.toml",
        "run", "openapi.json", "--url", str(api.base_url), *generated_examples,
        "--no-color", "--report", "ndjson", "--report-ndjson-path", "report",
    ]  # fmt: skip

    def send(configuration: str, operations: set[str]) -> Answers:
        users = [USER, USER + 1]
        text = _CONFIGURATION.format(callers=configuration, coupons=coupons, dead_letters=dead_letters, users=users)
        (tmp_path / "schemathesis.toml").write_text(text)
        ran = subprocess.run(
            [*command, *(f"--include-operation-id={name}" for name in operations)],
            capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(_ROOT)}, check=False,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return _answers(tmp_path / "report")

    return send


def test_the_document_is_valid_openapi(document: Any) -> None:
    """All references lead somewhere, and every operation has an id of its own."""
    validate(document)
    assert document["info"]["version"] == tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_every_time_is_described_as_one(document: Any) -> None:
    """A generated client has a type of its own for it."""
    times = {
        (name, field): schema
        for name, body in document["components"]["schemas"].items()
        for field, schema in body.get("properties", {}).items()
        if field.endswith("_at")
    }

    assert times
    assert {place for place, schema in times.items() if '"date-time"' not in json.dumps(schema)} == set()


@pytest.mark.timeout(900)
def test_generated_requests_of_operators_find_no_contradiction(send_generated: SendGenerated, document: Any) -> None:
    """Statuses, headers and bodies are those of the document; each operation succeeds at least once."""
    operations = _operations(document)
    chosen = {name for name in operations.values() if name not in _OF_USERS_ONLY | _ENDLESS}

    answers = send_generated('user = "an administrator"', chosen)

    assert _succeeded(answers, operations) == chosen


@pytest.mark.timeout(900)
def test_generated_requests_of_users_find_no_contradiction(send_generated: SendGenerated, document: Any) -> None:
    """The same, and a request that one user made does not exist for another."""
    answers = send_generated('peers = ["a user", "another user"]', _OF_USERS)

    assert _succeeded(answers, _operations(document)) == _OF_USERS
    assert answers["GET /issuances/{request_id}", "a user", 200] > 0
    assert answers["GET /issuances/{request_id}", "another user", 404] > 0


def _operations(document: Any) -> dict[str, str]:
    """Return the id of each operation, by method and path."""
    return {
        f"{method.upper()} {path}": operation["operationId"]
        for path, by_method in document["paths"].items()
        for method, operation in by_method.items()
    }


def _answers(report: Path) -> Answers:
    found: Answers = Counter()
    for line in report.read_text().splitlines():
        recorder = json.loads(line).get("ScenarioFinished", {}).get("recorder", {})
        for case_id, interaction in recorder.get("interactions", {}).items():
            case = recorder["cases"][case_id]["value"]
            operation = f"{case['method']} {case['path']}"
            found[operation, case.get("auth_identity"), interaction["response"]["status_code"]] += 1
    return found


def _succeeded(answers: Answers, operations: dict[str, str]) -> set[str]:
    """Return the ids of the operations that were answered 2xx."""
    return {operations[name] for name, _, status in answers if status < 300}
