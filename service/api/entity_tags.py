"""Entity tags of representations, and the condition If-None-Match (RFC 9110, sections 8.8.3 and 13.1.2)."""

import re
from hashlib import blake2b

_TAG = re.compile(r'(?:W/)?"([^"]*)"')


def weak_tag(content: bytes) -> str:
    """Return a weak entity tag of this content: representations with the same tag mean the same."""
    return f'W/"{blake2b(content, digest_size=12).hexdigest()}"'


def matches(tag: str, if_none_match: str | None) -> bool:
    """Return whether the header names the tag, by the weak comparison, or any tag (`*`)."""
    if if_none_match is None:
        return False
    return if_none_match.strip() == "*" or _TAG.findall(tag)[0] in _TAG.findall(if_none_match)
