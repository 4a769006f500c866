"""Sessions: who can make one, and what they state."""

import pytest

from service.domain.session import Session, Sessions

_MAC_KEY, _DIGEST = b"a key of request ids", b"the digest of an API key"
_SESSION = Session("ck_Ab12Cd34", 1_800_000_000)


def test_a_session_states_its_key_and_its_end() -> None:
    sessions = Sessions([_MAC_KEY])
    text = sessions.sign(_SESSION, _DIGEST)

    assert sessions.read(text) == _SESSION
    assert sessions.is_signed(text, _DIGEST)


@pytest.mark.parametrize(
    ("mac_key", "digest"), [(_MAC_KEY, b""), (_MAC_KEY, b"of another key"), (b"", _DIGEST), (b"another key", _DIGEST)]
)
def test_nobody_makes_one_without_both_secrets(mac_key: bytes, digest: bytes) -> None:
    """Neither from a backup of the database, nor with a key of the MAC alone."""
    forged = Sessions([mac_key]).sign(_SESSION, digest)

    assert not Sessions([_MAC_KEY]).is_signed(forged, _DIGEST)


def test_no_character_can_be_changed() -> None:
    sessions = Sessions([_MAC_KEY])
    text = sessions.sign(_SESSION, _DIGEST)
    changed = [text[:at] + other + text[at + 1 :] for at in range(len(text)) for other in "Ab" if text[at] != other]

    assert not any(sessions.is_signed(one, _DIGEST) for one in changed)


def test_a_text_of_another_form_states_nothing() -> None:
    sessions = Sessions([_MAC_KEY])

    assert [sessions.read(text) for text in ("", "x", 44 * "!", 44 * "é", 45 * "A")] == [None] * 5


def test_every_key_verifies_and_the_first_one_signs() -> None:
    """So that the key can be changed while operators are logged in."""
    old, both, new = Sessions([b"old"]), Sessions([b"new", b"old"]), Sessions([b"new"])

    assert both.is_signed(old.sign(_SESSION, _DIGEST), _DIGEST)
    assert new.is_signed(both.sign(_SESSION, _DIGEST), _DIGEST)
    assert not old.is_signed(both.sign(_SESSION, _DIGEST), _DIGEST)
