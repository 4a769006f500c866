"""Ids in paths and cursors have exactly one spelling."""

import pytest

from service.api.request_parsing import parse_id
from service.domain.errors import InvalidInput


@pytest.mark.parametrize(("text", "number"), [("1", 1), ("10", 10), ("9223372036854775807", 2**63 - 1)])
def test_a_decimal_number_is_an_id(text: str, number: int) -> None:
    """Ids range from 1 to 2⁶³−1."""
    assert parse_id(text) == number


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "-1",
        "+1",
        "01",
        " 1",
        "1 ",
        "1\n",
        "1_000",
        "1.0",
        "1e3",
        "0x1",
        "١",
        "１",
        "1１",
        "²",
        "true",
        "1\x00",
        "9223372036854775808",
        "99999999999999999999",
        "9" * 5000,
    ],
)
def test_any_other_spelling_is_invalid(text: str) -> None:
    """A second spelling of an id could bypass what counts by id; the response is 422, never an overflow."""
    with pytest.raises(InvalidInput):
        parse_id(text)
