"""Makes foreign text safe to print: a terminal obeys control characters, and a line of a log can be forged."""

import json


def escape(text: str) -> str:
    """Replace characters that are not printable, such as ESC or a line break, by their Python escapes."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def escape_lines(text: str) -> str:
    """Do the same in each line, and keep the lines."""
    return "\n".join(map(escape, text.split("\n")))


def escape_json(text: str) -> str:
    """Replace characters of a JSON text that are not printable by JSON's escapes, which keep the text's value."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text)
