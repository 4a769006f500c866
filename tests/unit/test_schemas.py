"""Bodies are decoded strictly: no value is guessed, converted or dropped."""

import json
import re
from datetime import UTC, datetime
from unicodedata import normalize

import pytest

from service.api.schemas.base import decode, schema_of
from service.api.schemas.coupons import NewCoupon
from service.api.schemas.issuances import NewIssuance
from service.domain.errors import InvalidInput
from service.timestamps import to_datetime, to_milliseconds


@pytest.mark.parametrize(
    "text",
    [
        *['"1"', "true", "null", "1.0", "1.5", "1e3", "1E0", "NaN", "Infinity", "-Infinity", "1e999", "[1]", "{}"],
        *["0", "-0", "-1", "01", "+1", "0x1", "1_000", "9007199254740992", "9" * 150, "9" * 5000, "[" * 5000],
    ],
    ids=lambda text: text[:20],
)
def test_a_user_id_is_a_json_integer_from_1(text: str) -> None:
    """User ids are JSON integers 1…2⁵³−1; nothing else is converted to one."""
    with pytest.raises(InvalidInput):
        decode(b'{"user_id":%s}' % text.encode(), NewIssuance)


def test_the_error_about_an_id_that_javascript_would_change_names_the_bound() -> None:
    """JavaScript reads 2⁵³+1 as 2⁵³: another user's id."""
    with pytest.raises(InvalidInput, match=r"<= 9007199254740991 - at `\$\.user_id`"):
        decode(b'{"user_id":9007199254740993}', NewIssuance)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"1",
        b'{"user_id":null}',
        b'{"user_id":1',
        b'{"user_id":1}x',
        b'{"user_id":1}{"user_id":1}',
        b'{"user_id":1,"user_id":1}',
        b'{"user\\u005fid":1,"user_id":2}',
        b'{"user_id":1,}',
        b"{'user_id':1}",
        b'{"User_id":1}',
        b'{"user_id":1,"state":"issued"}',
        b'\xef\xbb\xbf{"user_id":1}',
        '{"user_id":1}'.encode("utf-16"),
        b"[" * 200_000,
        b'{"a":' * 5_000,
    ],
    ids=lambda body: repr(body)[:40],
)
def test_a_body_of_another_form_is_refused(body: bytes) -> None:
    """An empty, truncated, nested or mistyped body, or one with an unknown field, is a 422 and never a 500."""
    with pytest.raises(InvalidInput):
        decode(body, NewIssuance)


@pytest.mark.parametrize(
    ("body", "user_id"),
    [(b'{"user_id":1}', 1), (b' {"user_id" : 9007199254740991}\n', 2**53 - 1)],
    ids=["plain", "white space, the largest"],
)
def test_a_valid_body_is_decoded(body: bytes, user_id: int) -> None:
    """A valid body is decoded unchanged."""
    assert decode(body, NewIssuance) == NewIssuance(user_id)


@pytest.mark.parametrize(
    "more",
    [
        *[
            '"name":""',
            '"name":"a\\u0000b"',
            '"name":"a\\nb"',
            '"name":"a\\n"',
            '"name":"\\u007f"',
            '"name":"\\ud800"',
            '"name":7',
        ],
        '"name":"' + "x" * 201 + '"',
        *['"quantity":0', '"quantity":-1', '"quantity":2147483648', '"quantity":"3"', '"quantity":3.0'],
        *['"quantity":true', '"quantity":null', '"waitlist":-1', '"waitlist":2147483648', '"waitlist":null'],
        *['"issued":1', '"id":1', '"override":"closed"'],
        *['"opens_at":1', '"opens_at":"tomorrow"', '"opens_at":"2026-01-01"', '"opens_at":"2026-01-01T00:00:00"'],
        *['"opens_at":"2026-02-30T00:00:00Z"', '"opens_at":"2026-01-01T25:00:00Z"', '"opens_at":""'],
        '"opens_at":"2026-01-02T00:00:00Z","closes_at":"2026-01-01T00:00:00Z"',
        '"opens_at":"2026-01-01T00:00:00Z","closes_at":"2026-01-01T00:00:00Z"',
        '"opens_at":"2026-01-01T00:00:00Z","closes_at":"2026-01-01T09:00:00+09:00"',
    ],
)
def test_an_invalid_coupon_is_refused(more: str) -> None:
    """Values that the database cannot store or that would harm a user's display are refused on input."""
    with pytest.raises(InvalidInput):
        decode(b'{"name":"x","quantity":1,%s}' % more.encode(), NewCoupon)


def test_a_name_that_is_not_utf8_is_refused() -> None:
    """Invalid UTF-8 is a 422 and never a 500."""
    with pytest.raises(InvalidInput):
        decode(b'{"name":"\xff","quantity":1}', NewCoupon)


def test_a_coupon_is_decoded() -> None:
    """Times are RFC 3339 with an offset; names are any text without control characters."""
    body = '{"name":"치킨 🍗","quantity":2147483647,"opens_at":"2026-01-01T09:00:00.25+09:00"}'.encode()

    read = decode(body, NewCoupon)

    assert read == NewCoupon("치킨 🍗", 2**31 - 1, 0, datetime(2026, 1, 1, 0, 0, 0, 250_000, UTC), None)


@pytest.mark.parametrize(
    "window",
    [
        ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"),
        ("0001-01-01T00:00:00+14:00", "2026-01-01T00:00:00Z"),
        ("2026-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"),
        ("2026-01-01T00:00:00Z", "9999-12-31T23:59:59-14:00"),
        ("2026-01-01T00:00:00.000100Z", "2026-01-01T00:00:00.000200Z"),
    ],
    ids=["widest", "before year 1", "rounds to year 10000", "after year 9999", "open for less than a millisecond"],
)
def test_an_accepted_window_can_be_stored(window: tuple[str, str]) -> None:
    """A window is either refused on input or accepted by the database."""
    try:
        read = decode(
            b'{"name":"x","quantity":1,"opens_at":"%s","closes_at":"%s"}' % tuple(map(str.encode, window)), NewCoupon
        )
    except InvalidInput:
        return

    assert read.opens_at is not None
    assert read.closes_at is not None
    assert to_datetime(to_milliseconds(read.opens_at)) < to_datetime(to_milliseconds(read.closes_at))


@pytest.mark.parametrize(
    "name",
    [
        *["\x00", "a\nb", "a\n", "a\x1b[2J", "a\x7f", "a\x85b", "a\x9b31m"],
        *["a\u2028b", "a\u2029b", "a\u202eb", "\u202aa\u202c", "a\u2066b", "a\u2069"],
        *["", " ", "\u3000\xa0 ", "\u200b", "\u200e\u200f", "\u2060\ufeff\xad", "\u3164", "\uffa0", "\u2800", "\ufe0f"],
        *["\U000e0041", "a" * 201],
    ],
    ids=ascii,
)
def test_a_name_that_is_not_shown_as_it_was_meant_is_refused(name: str) -> None:
    """Controls, reversed text, line separators and blank names are a 422 that says why; the schema says it before."""
    body = json.dumps({"name": name, "quantity": 1}).encode()
    with pytest.raises(InvalidInput, match="name"):
        decode(body, NewCoupon)

    schema = schema_of(NewCoupon)["NewCoupon"]["properties"]["name"]
    assert len(name) > schema["maxLength"] or not re.search(schema["pattern"], name)


def test_a_name_is_stored_in_one_form() -> None:
    """The letters of a syllable one by one, as some keyboards send them, are the same name as the syllables."""
    name = "치킨 é"

    for form in ("NFC", "NFD"):
        body = json.dumps({"name": normalize(form, name), "quantity": 1}).encode()
        assert decode(body, NewCoupon).name == name


def test_a_name_that_is_too_long_in_its_form_is_refused() -> None:
    """One character of the musical symbols becomes three."""
    with pytest.raises(InvalidInput, match="name must not have more than 200 characters"):
        decode(json.dumps({"name": "\U0001d160" * 100, "quantity": 1}).encode(), NewCoupon)


@pytest.mark.parametrize(
    "name",
    [
        *[
            "치킨 쿠폰",
            "a",
            "!",
            "a\u3000b",
            "\xa0a",
            "א\u200f1",
            "می\u200cخواهم",
            "👨\u200d👩\u200d👧",
            "❤\ufe0f",
            "🏴󠁧󠁢󠁥󠁮󠁧󠁿",
        ],
        *["\u0301", "\ue000", "a" * 200],
    ],
    ids=ascii,
)
def test_a_name_in_any_script_is_accepted(name: str) -> None:
    """Joiners, direction marks and variation selectors belong to scripts and emoji."""
    assert decode(json.dumps({"name": name, "quantity": 1}).encode(), NewCoupon).name == name
    assert re.search(schema_of(NewCoupon)["NewCoupon"]["properties"]["name"]["pattern"], name)
