"""Every route refuses the same bad input with the same problem: 4xx, never 5xx, and without an effect."""

from collections.abc import Callable, Iterable

import httpx
import pytest

from service.api.authorization import permissions
from service.domain.api_key import NewKey
from service.domain.caller import Permission, Role
from service.domain.coupon import Coupon
from service.domain.error_code import ErrorCode
from service.server.problems import PROBLEMS
from tests.bad_inputs import BadInputs, Case
from tests.fixtures.callers import bearer, token
from tests.integration.conftest import Query

_NEEDED = permissions(public_docs=False)
_MEMBERS = {"type", "title", "status", "code", "detail", "problem_id"}
Find = Callable[[Iterable[Case]], list[str]]


@pytest.fixture
def bad(api: httpx.Client, keys: dict[Role, NewKey], make_coupon: Callable[..., Coupon]) -> BadInputs:
    """The bad inputs of all routes of the document."""
    document = api.get("/openapi.json", headers=bearer(keys[Role.READ].text)).json()
    return BadInputs(
        document, {"coupon_id": str(make_coupon().id), "dead_letter_id": "1", "request_id": "x", "user_id": "7"}
    )


@pytest.fixture
def find_wrong(api: httpx.Client, keys: dict[Role, NewKey], query: Query) -> Find:
    """Send requests of a caller who may send them; return those whose answer is not the expected problem."""
    credentials = dict.fromkeys(Permission, keys[Role.ADMIN].text)
    credentials[Permission.REQUEST] = keys[Role.ON_BEHALF].text
    credentials[Permission.EXCHANGE] = token()

    def find(cases: Iterable[Case]) -> list[str]:
        wrong, count = [], 0
        for count, case in enumerate(cases, 1):  # noqa: B007  # there must be some
            needed = _NEEDED.get((case.method, case.template), Permission.PUBLIC)
            headers = {**bearer(credentials[needed]), **case.headers}
            answer = api.request(case.method, case.path, content=case.content, headers=headers)
            if fault := _fault(case, answer):
                wrong.append(f"{case}: {fault}")
        assert count, "no route has such an input"
        assert query("SELECT (SELECT count(*) FROM coupons), (SELECT count(*) FROM coupon_changes)") == [(1, 1)]
        return wrong

    return find


def _fault(case: Case, answer: httpx.Response) -> str | None:
    """Return how an answer differs from the problem with the expected code, whatever its detail; None: not at all."""
    kind = PROBLEMS[case.code]
    expected = (kind.status, "application/problem+json")
    found = (answer.status_code, answer.headers.get("content-type"))
    if found != expected or not {name.lower() for name in kind.headers} <= answer.headers.keys():
        return f"{found} {answer.headers} {answer.text}"
    if case.method == "HEAD":
        return None
    body = answer.json()
    fields = (body["type"], body["title"], body["status"], body["code"])
    if body.keys() != _MEMBERS or fields != (f"/problems/{case.code}", kind.title, kind.status, case.code):
        return answer.text
    return answer.text if "Traceback" in answer.text else None


def test_a_bad_body_is_invalid_on_every_route(bad: BadInputs, find_wrong: Find) -> None:
    """No JSON, no object, another type, a value beyond a bound, an unknown, missing or repeated field."""
    assert find_wrong(bad.bodies()) == []


def test_a_body_that_is_not_declared_as_json_is_refused_on_every_route(bad: BadInputs, find_wrong: Find) -> None:
    """Another type, none, or an encoding."""
    assert find_wrong(bad.media_types()) == []


def test_a_large_body_is_refused_on_every_route(bad: BadInputs, find_wrong: Find) -> None:
    """The server refuses it before the route."""
    assert find_wrong(bad.large_bodies()) == []


def test_an_id_has_one_spelling_on_every_route(bad: BadInputs, find_wrong: Find) -> None:
    """Others are invalid; what nothing has is 404."""
    assert find_wrong(bad.paths()) == []


def test_a_bad_query_is_invalid_on_every_route(bad: BadInputs, find_wrong: Find) -> None:
    """No number, a value that is none of the documented ones, a parameter that is sent twice."""
    assert find_wrong(bad.queries()) == []


def test_an_odd_header_is_no_server_error(bad: BadInputs, api: httpx.Client, keys: dict[Role, NewKey]) -> None:
    """A header that is no condition or key is refused, or matches nothing."""
    for case in bad.headers():
        headers = {**bearer(keys[Role.ADMIN].text), **case.headers}
        encoded = {name.encode(): value.encode("latin-1") for name, value in headers.items()}
        answer = api.request(case.method, case.path, content=case.content, headers=encoded)
        assert answer.status_code < 500, case
        if answer.is_error:
            assert _fault(case._replace(code=ErrorCode(answer.json()["code"])), answer) is None, case


def test_every_path_names_the_methods_that_it_has(bad: BadInputs, api: httpx.Client) -> None:
    """Any other method is 405 without credentials, too."""
    for case in bad.methods():
        answer = api.request(case.method, case.path)
        assert _fault(case, answer) is None, case
        assert answer.headers["allow"] == case.headers["allow"], case


def test_bad_credentials_are_refused_alike_on_every_route(bad: BadInputs, api: httpx.Client) -> None:
    """Without credentials, and with some that nothing verifies."""
    for case in bad.valid():
        if _NEEDED[case.method, case.template] is Permission.PUBLIC:
            continue
        for headers in ({}, bearer("x"), bearer("a.b.c"), bearer("ck_" + 43 * "x"), {"Authorization": "Basic eDp4"}):
            refused = case._replace(code=ErrorCode.UNAUTHENTICATED)
            answer = api.request(case.method, case.path, content=case.content, headers={**case.headers, **headers})
            assert _fault(refused, answer) is None, (case, answer.text)


def test_a_token_that_is_too_long_is_refused_on_every_route(bad: BadInputs, api: httpx.Client) -> None:
    """64 KiB do not reach a route."""
    for case in bad.valid():
        refused = case._replace(code=ErrorCode.REQUEST_HEADER_FIELDS_TOO_LARGE)
        answer = api.request(
            case.method, case.path, content=case.content, headers={**case.headers, **bearer("a" * 65_536)}
        )
        assert _fault(refused, answer) is None, (case, answer.text)
