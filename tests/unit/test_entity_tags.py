"""If-None-Match is compared by the weak comparison (RFC 9110)."""

import pytest

from service.api.entity_tags import matches, weak_tag

TAG = weak_tag(b"a state")


@pytest.mark.parametrize("header", ["*", TAG, TAG.removeprefix("W/"), f'"x", {TAG}', f'{TAG},W/"y"'])
def test_a_tag_that_is_named_matches(header: str) -> None:
    """Weak or strong, alone or in a list."""
    assert matches(TAG, header)


@pytest.mark.parametrize("header", [None, "", '"x"', TAG.strip('W/"'), weak_tag(b"another state")])
def test_any_other_tag_does_not(header: str | None) -> None:
    """Without quotes it is no entity tag."""
    assert not matches(TAG, header)
