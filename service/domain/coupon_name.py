"""Which text can be the name of a coupon: one that pages, terminals and notices show as it was meant."""

import re
from unicodedata import normalize

from service.limits import MAX_NAME_LENGTH

#: controls, separators of lines and paragraphs, and characters that embed, override or isolate a direction of text
_REFUSED = r"\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069"
#: what is drawn as nothing: Unicode's White_Space and Default_Ignorable_Code_Point, and the empty pattern of Braille.
#: Beside other characters they are allowed: scripts and emoji need joiners, direction marks and variation selectors.
_UNSEEN = (
    r" \xa0\xad\u034f\u061c\u115f\u1160\u1680\u17b4\u17b5\u180b-\u180f\u2000-\u200f\u202f\u205f-\u2065\u206a-\u206f"
    r"\u2800\u3000\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
#: the same rule for the OpenAPI document
NAME_PATTERN = rf"^[^{_REFUSED}]*[^{_REFUSED}{_UNSEEN}][^{_REFUSED}]*$(?!\n)"

#: the rule for a part of a name in a query, which may be blank; U+FFFD takes the place of what is not UTF-8
PART_PATTERN = rf"^[^{_REFUSED}\ufffd]+$(?!\n)"

_refused = re.compile(f"[{_REFUSED}]")
_seen = re.compile(f"[^{_REFUSED}{_UNSEEN}]")


def normalize_name(text: str) -> str:
    """Return the text in Unicode's form NFC, in which names are stored: equal names are equal strings.

    Some keyboards and file systems send the letters of a syllable one by one. Letters that only look alike stay apart:
    a name identifies nothing.
    """
    return normalize("NFC", text)


def name_fault(name: str) -> str | None:
    """Return why the normalized text cannot be a name, or None."""
    return part_fault(name) or (None if _seen.search(name) else "name must contain a character that can be seen")


def part_fault(part: str) -> str | None:
    """Return why the normalized text cannot be a part of a name, or None."""
    if len(part) > MAX_NAME_LENGTH:  # a few characters are longer in NFC
        return f"name must not have more than {MAX_NAME_LENGTH} characters in Unicode's form NFC"
    if refused := _refused.search(part):
        return (
            f"name must not contain U+{ord(refused[0]):04X}: it is a control character, separates lines, or changes the"
            " direction of the text around it"
        )
    return None
