"""Ids in paths and cursors, and the sizes of pages, have exactly one spelling."""

import pytest

from service.api.request_parsing import parse_id, parse_limit
from service.domain.errors import InvalidInput
from service.limits import MAX_PAGE_SIZE


@pytest.mark.parametrize(("text", "number"), [("1", 1), ("10", 10), ("9223372036854775807", 2**63 - 1)])
def test_a_decimal_number_is_an_id(text: str, number: int) -> None:
    """Ids range from 1 to 2⁶³−1."""
    assert parse_id(text, "coupon_id") == number


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
    """A second spelling of an id could bypass what counts by id; the response is 422 with the parameter's name."""
    with pytest.raises(InvalidInput, match=r"^coupon_id must be a decimal number from 1 to 9223372036854775807, "):
        parse_id(text, "coupon_id")


@pytest.mark.parametrize(("text", "size"), [("1", 1), ("50", 50), (str(MAX_PAGE_SIZE), MAX_PAGE_SIZE)])
def test_a_page_has_up_to_500_entries(text: str, size: int) -> None:
    """The limit of a page ranges from 1 to 500."""
    assert parse_limit(text) == size


@pytest.mark.parametrize("text", ["0", str(MAX_PAGE_SIZE + 1), "9223372036854775808", "-1", "01", "x", ""])
def test_any_other_limit_is_refused_with_the_range(text: str) -> None:
    """The error names the range of the limit, not that of ids."""
    with pytest.raises(InvalidInput, match=r"^limit must be a decimal number from 1 to 500, "):
        parse_limit(text)
