"""Request ids that are verified without a store."""

from base64 import urlsafe_b64decode, urlsafe_b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.errors import KeyEnded, KeyMissing
from service.domain.request import LogPosition
from service.domain.request_id import RequestIdClaims, RequestIds, fingerprint
from service.limits import MAX_ID
from tests.builders import AT_MS, TOPIC_ID

OLD_KEY, NEW_KEY, FOREIGN_KEY = b"an old key, long enough", b"a new key, long enough", b"the key of another issuer"
IDS = RequestIds([NEW_KEY])
_IDS = st.integers(1, MAX_ID)


@given(_IDS, _IDS, st.integers(0, 2**48 - 1))
def test_an_id_contains_what_it_was_minted_for(coupon_id: int, user_id: int, at_ms: int) -> None:
    """Coupon, user and time are decoded from the id alone."""
    text = IDS.mint(coupon_id, user_id, at_ms)

    assert IDS.decode(text) == RequestIdClaims(coupon_id, user_id, at_ms, foreign=False)
    assert len(text) == 60
    assert text.replace("-", "").replace("_", "").isalnum()


def test_every_minted_id_is_different() -> None:
    """P2: two calls of one user in one millisecond are two requests."""
    assert len({IDS.mint(1, 1, AT_MS) for _ in range(1000)}) == 1000


@pytest.mark.parametrize("byte", range(45))
def test_an_id_with_any_byte_changed_is_not_ours(byte: int) -> None:
    """A client cannot change the coupon, the user, the time, the kind or the MAC."""
    raw = bytearray(urlsafe_b64decode(IDS.mint(42, 7, AT_MS)))
    raw[byte] ^= 1

    assert IDS.decode(urlsafe_b64encode(raw).decode()) is None


def test_an_id_signed_with_another_key_is_rejected() -> None:
    """Without a key nobody can create a valid id."""
    assert RequestIds([FOREIGN_KEY]).decode(IDS.mint(42, 7, AT_MS)) is None


def test_old_keys_stay_valid_during_a_rotation() -> None:
    """Ids of the old key are read while it is configured, the new key signs, and a retired key is no longer valid."""
    before, during, after = RequestIds([OLD_KEY]), RequestIds([NEW_KEY, OLD_KEY]), RequestIds([NEW_KEY])
    old, new = before.mint(42, 7, AT_MS), during.mint(42, 7, AT_MS)

    assert during.decode(old) == during.decode(new) == RequestIdClaims(42, 7, AT_MS, foreign=False)
    assert after.decode(new) is not None
    assert after.decode(old) is None


def test_the_first_key_signs_wherever_the_others_stand() -> None:
    """A key in the last place verifies and does not sign, so it can be added before any process signs with it."""
    prepared, promoted = RequestIds([OLD_KEY, NEW_KEY]), RequestIds([NEW_KEY, OLD_KEY])

    assert RequestIds([OLD_KEY]).decode(prepared.mint(42, 7, AT_MS)) is not None
    assert prepared.decode(promoted.mint(42, 7, AT_MS)) is not None


def test_a_fingerprint_names_a_key() -> None:
    """The same key has the same fingerprint in every process, another key has another one."""
    assert RequestIds([OLD_KEY, NEW_KEY]).fingerprints == (fingerprint(OLD_KEY), fingerprint(NEW_KEY))
    assert len({fingerprint(key) for key in (OLD_KEY, NEW_KEY, FOREIGN_KEY)}) == 3
    assert all(len(fingerprint(key)) == 8 and int(fingerprint(key), 16) for key in (OLD_KEY, NEW_KEY))


def test_an_id_of_an_unknown_key_is_unverified() -> None:
    """An id of our form is told apart from a text of another form, and from an id that a key verifies."""
    unknown = RequestIds([FOREIGN_KEY])
    minted, derived = unknown.mint(42, 7, AT_MS), unknown.derive(TOPIC_ID, LogPosition(3, 14), 42, 7, AT_MS)

    assert IDS.is_unverified(minted)
    assert IDS.is_unverified(derived)
    assert not any(map(IDS.is_unverified, [IDS.mint(42, 7, AT_MS), "A" * 60, "nonsense", minted[:-1], minted + "A"]))


@pytest.mark.parametrize(("coupon_id", "user_id", "expected"), [(42, 7, True), (42, 8, False), (43, 7, False)])
def test_an_id_of_an_unknown_key_is_unverified_for_its_own_record(
    coupon_id: int, user_id: int, *, expected: bool
) -> None:
    """A process that lacks a key meets ids that fit their records; an id for something else was copied or made up."""
    text = RequestIds([FOREIGN_KEY]).mint(42, 7, AT_MS).encode()

    assert IDS.is_unverified_for(text, coupon_id, user_id) is expected
    assert not IDS.is_unverified_for(IDS.mint(coupon_id, user_id, AT_MS).encode(), coupon_id, user_id)


HOUR_MS, DAY_MS = 3_600_000, 86_400_000


def _ending(end_ms: int) -> RequestIds:
    """Return the keys of a process whose old key has an end."""
    ids = RequestIds([NEW_KEY, OLD_KEY])
    ids.set_ends({fingerprint(OLD_KEY): end_ms, fingerprint(FOREIGN_KEY): 0})
    return ids


@pytest.mark.parametrize(
    ("minted_at_ms", "appended_at_ms", "accepted"),
    [
        (AT_MS, AT_MS, True),
        (AT_MS, AT_MS + DAY_MS, True),
        (AT_MS + 1, AT_MS + 1, False),
        (AT_MS + 1, AT_MS - 10, False),
        (AT_MS - 1, AT_MS + DAY_MS + 1, False),
    ],
    ids=["at the end", "repeated for a day", "after the end", "clock of the API is fast", "earlier time was forged"],
)
def test_an_id_that_was_minted_after_the_end_of_its_key_is_not_ours(
    minted_at_ms: int, appended_at_ms: int, *, accepted: bool
) -> None:
    """The key's end counts, not that of other keys; the id can still be decoded, and is not unverified."""
    ids = _ending(AT_MS)
    old, new = (RequestIds([key]).mint(42, 7, minted_at_ms).encode() for key in (OLD_KEY, NEW_KEY))

    assert ids.was_minted_for(old, 42, 7, appended_at_ms) is accepted
    assert ids.ended_key_of(old, 42, 7, appended_at_ms) == (None if accepted else fingerprint(OLD_KEY))
    assert not ids.is_unverified_for(old, 42, 7)
    assert ids.decode(old.decode()) == RequestIdClaims(42, 7, minted_at_ms, foreign=False)
    assert ids.was_minted_for(new, 42, 7, appended_at_ms)
    assert [ids.ended_key_of(text, 42, user, appended_at_ms) for text, user in ((new, 7), (old, 8))] == [None, None]


def test_a_key_signs_nothing_after_its_end() -> None:
    """P4: so no user gets an id which the issuer would not take for ours, whatever the clocks are."""
    ids = RequestIds([OLD_KEY, NEW_KEY])
    ids.set_ends({fingerprint(OLD_KEY): AT_MS})

    assert ids.was_minted_for(ids.mint(42, 7, AT_MS).encode(), 42, 7, AT_MS)
    with pytest.raises(KeyEnded, match=fingerprint(OLD_KEY)):
        ids.mint(42, 7, AT_MS + 1)
    assert ids.decode(ids.derive(TOPIC_ID, LogPosition(3, 14), 42, 7, AT_MS + 1))


def test_a_request_is_repeated_until_an_hour_before_its_record_would_be_foreign() -> None:
    """P4: a repeat that gets a 202 is decided under its id. An id that no key verifies is not repeated at all."""
    ids = _ending(AT_MS)
    text = RequestIds([OLD_KEY]).mint(42, 7, AT_MS)

    ids.require_repeatable(text, AT_MS + DAY_MS - HOUR_MS)
    with pytest.raises(KeyEnded):
        ids.require_repeatable(text, AT_MS + DAY_MS - HOUR_MS + 1)
    with pytest.raises(KeyMissing):
        ids.require_repeatable(RequestIds([FOREIGN_KEY]).mint(42, 7, AT_MS), AT_MS)


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
    ids=[
        "empty", "cut", "longer", "newline added", "newline first", "newline last", "padded", "padding",
        "plus", "slash", "space", "latin-1", "surrogate", "null", "full width", "made up",
    ],
)  # fmt: skip
def test_a_text_of_another_form_is_not_an_id_of_ours(text: str) -> None:
    """A lookup of such a text answers that the request is unknown; it is not an error."""
    assert IDS.decode(text) is None


@pytest.mark.parametrize(("urlsafe", "plain"), [("-", "+"), ("_", "/")])
def test_an_id_has_one_spelling(urlsafe: str, plain: str) -> None:
    """Plain base64 of the same bytes is another text, and another text is not the id."""
    text = next(text for _ in range(10_000) if urlsafe in (text := IDS.mint(42, 7, AT_MS)))

    assert IDS.decode(text) is not None
    assert IDS.decode(text.replace(urlsafe, plain)) is None


@given(st.text() | st.text(alphabet="Aa0-_=+/\n", min_size=58, max_size=62))
def test_decoding_never_raises(text: str) -> None:
    """Every text that a caller puts into the path gets an answer."""
    assert IDS.decode(text) is None


def test_a_foreign_record_has_the_same_id_each_time() -> None:
    """P2: a foreign record's id is derived from its LogPosition, so reading it again is a redelivery."""
    derived = IDS.derive(TOPIC_ID, LogPosition(3, 14), 42, 7, AT_MS)

    assert derived == IDS.derive(TOPIC_ID, LogPosition(3, 14), 42, 7, AT_MS)
    assert IDS.decode(derived) == RequestIdClaims(42, 7, AT_MS, foreign=True)


def test_the_same_position_of_a_topic_that_was_created_again_has_another_id() -> None:
    """P2: the new topic holds other records at the same positions."""
    assert IDS.derive(TOPIC_ID, LogPosition(3, 14), 42, 7, AT_MS) != IDS.derive(
        "another", LogPosition(3, 14), 42, 7, AT_MS
    )


def test_foreign_records_at_two_positions_have_two_ids() -> None:
    """P2: two messages of one user are two requests, on another offset or another partition."""
    positions = [LogPosition(3, 14), LogPosition(3, 15), LogPosition(4, 14), LogPosition(14, 3)]

    assert len({IDS.derive(TOPIC_ID, position, 42, 7, AT_MS) for position in positions}) == 4
