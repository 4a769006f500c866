"""Request ids that prove themselves without any store."""

from base64 import urlsafe_b64decode, urlsafe_b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.coupon import MAX_ID
from service.domain.request import LogPosition
from service.domain.request_id import RequestIdClaims, RequestIds
from tests.builders import AT_MS

OLD, NEW, OTHER = b"an old key, long enough", b"a new key, long enough", b"somebody else's key"
IDS = RequestIds([NEW])
_IDS = st.integers(1, MAX_ID)


@given(_IDS, _IDS, st.integers(0, 2**48 - 1))
def test_an_id_says_what_it_was_minted_for(coupon_id: int, user_id: int, at_ms: int) -> None:
    """Step 3: coupon, user and time come back out of the id alone."""
    text = IDS.mint(coupon_id, user_id, at_ms)

    assert IDS.decode(text) == RequestIdClaims(coupon_id, user_id, at_ms, foreign=False)
    assert len(text) == 60
    assert text.replace("-", "").replace("_", "").isalnum()


def test_no_two_ids_are_the_same() -> None:
    """P2: two presses of one user in one millisecond are two requests."""
    assert len({IDS.mint(1, 1, AT_MS) for _ in range(1000)}) == 1000


@pytest.mark.parametrize("byte", range(45))
def test_an_id_with_any_byte_changed_is_not_ours(byte: int) -> None:
    """Step 3: neither the coupon, the user, the time, the kind nor the MAC can be changed by its holder."""
    raw = bytearray(urlsafe_b64decode(IDS.mint(42, 7, AT_MS)))
    raw[byte] ^= 1

    assert IDS.decode(urlsafe_b64encode(raw).decode()) is None


def test_another_key_makes_other_ids() -> None:
    """Step 3: who does not have a key cannot make an id that is read."""
    assert RequestIds([OTHER]).decode(IDS.mint(42, 7, AT_MS)) is None


def test_old_keys_stay_valid_on_rotation() -> None:
    """Step 3: after a rotation the ids of the old key are read, the new key signs, and a retired key is no more."""
    before, during, after = RequestIds([OLD]), RequestIds([NEW, OLD]), RequestIds([NEW])
    old, new = before.mint(42, 7, AT_MS), during.mint(42, 7, AT_MS)

    assert during.decode(old) == during.decode(new) == RequestIdClaims(42, 7, AT_MS, foreign=False)
    assert after.decode(new) is not None
    assert after.decode(old) is None


_GOOD = IDS.mint(42, 7, AT_MS)


@pytest.mark.parametrize(
    "text",
    [
        "",
        _GOOD[:-1],
        _GOOD + "A",
        _GOOD + "\n",
        "\n" + _GOOD[1:],
        _GOOD[:-1] + "\n",
        _GOOD[:-1] + "=",
        _GOOD[:-4] + "====",
        "+" * 60,
        "/" * 60,
        " " * 60,
        "é" * 60,
        "\ud800" * 60,
        "\x00" * 60,
        "Ａ" * 60,
        "A" * 60,
    ],
)
def test_what_has_another_form_is_not_ours(text: str) -> None:
    """Step 3: a look-up of nonsense is "never heard of", not an error."""
    assert IDS.decode(text) is None


@pytest.mark.parametrize(("ours", "plain"), [("-", "+"), ("_", "/")])
def test_an_id_has_one_spelling(ours: str, plain: str) -> None:
    """A6: plain base64 of the same bytes is another text, and another text is not the id."""
    text = next(text for _ in range(10_000) if ours in (text := IDS.mint(42, 7, AT_MS)))

    assert IDS.decode(text) is not None
    assert IDS.decode(text.replace(ours, plain)) is None


@given(st.text() | st.text(alphabet="Aa0-_=+/\n", min_size=58, max_size=62))
def test_reading_never_raises(text: str) -> None:
    """Step 3: whatever a caller puts into the path is answered."""
    assert IDS.decode(text) is None


def test_a_foreign_records_id_is_the_same_each_time() -> None:
    """P2: a record without an id of ours gets one from its place, so that reading it again is a redelivery."""
    derived = IDS.derive(LogPosition(3, 14), 42, 7, AT_MS)

    assert derived == IDS.derive(LogPosition(3, 14), 42, 7, AT_MS)
    assert IDS.decode(derived) == RequestIdClaims(42, 7, AT_MS, foreign=True)


def test_foreign_records_at_two_places_have_two_ids() -> None:
    """P2: two messages of one user are two requests, on another offset or another partition."""
    places = [LogPosition(3, 14), LogPosition(3, 15), LogPosition(4, 14), LogPosition(14, 3)]

    assert len({IDS.derive(place, 42, 7, AT_MS) for place in places}) == 4
