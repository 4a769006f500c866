"""Renders what the `type` of a problem leads to: a page for each code and one that lists them, from PROBLEMS.

`python -m service.api.problem_pages` prints the list in Markdown, for docs/problems.md.
"""

from base64 import b64encode
from collections.abc import Iterable
from functools import cache
from hashlib import sha256
from html import escape

import msgspec

from service.api.openapi import EXAMPLE_PROBLEM_ID
from service.api.operations import HEADERS
from service.domain.error_code import ErrorCode
from service.server.problems import PROBLEMS, PROBLEMS_PATH
from service.server.responses import encode, make_problem

_STYLE = (
    ":root{color-scheme:light dark}"
    "body{font:1rem/1.5 system-ui,sans-serif;max-width:48rem;margin:2rem auto;padding:0 1rem}"
    "h1,h2,code{overflow-wrap:anywhere}"
    "pre{border:1px solid;padding:1rem;white-space:pre-wrap;overflow-wrap:anywhere}"
    "dt{margin-top:1rem}"
)
PAGE_HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{b64encode(sha256(_STYLE.encode()).digest()).decode()}';"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "public, max-age=3600",
}
"""The headers of every page: no script runs, and no other site frames it."""
_INTRODUCTION = (
    "Every error of the API is a problem (RFC 9457). Its code says what went wrong, for programs. Later versions may"
    " add codes: treat an unknown one by its HTTP status."
)


@cache
def render_index() -> str:
    """Return the page that lists all problems."""
    items = (
        f'<dt><a href="{PROBLEMS_PATH[1:]}/{code}"><code>{code}</code></a> ({kind.status.value})</dt>'
        f"<dd>{escape(kind.detail)}</dd>"
        for code, kind in PROBLEMS.items()
    )
    return _page("Problems", [f"<p>{_INTRODUCTION}</p>", "<dl>", *items, "</dl>"])


@cache
def render_problem(code: ErrorCode) -> str:
    """Return the page about the problem with this code."""
    kind = PROBLEMS[code]
    parts = [
        f"<p>Code <code>{code}</code>, HTTP status {kind.status.value} {kind.status.phrase}</p>",
        f"<p>{escape(kind.detail)}</p>",
    ]
    if kind.headers:
        items = (f"<dt><code>{name}</code></dt><dd>{escape(HEADERS[name][0])}</dd>" for name in kind.headers)
        parts += ["<h2>Headers of the response</h2>", "<dl>", *items, "</dl>"]
    example = msgspec.json.format(encode(make_problem(code, None, EXAMPLE_PROBLEM_ID))).decode()
    parts += [
        "<h2>Example</h2>",
        "<p>An operator finds the <code>problem_id</code> of a response in the log.</p>",
        f"<pre>{escape(example)}</pre>",
        f'<p><a href="..{PROBLEMS_PATH}">All problems</a></p>',
    ]
    return _page(kind.title, parts)


def _page(title: str, parts: Iterable[str]) -> str:
    """Return a page. Its links are relative, so that they lead to the right place behind a proxy with a path."""
    return "\n".join(
        (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>",
            f"<h1>{escape(title)}</h1>",
            *parts,
            "</main>\n</body>\n</html>\n",
        )
    )


def render_markdown() -> str:
    """Return the list of all problems for docs/problems.md."""
    rows = (
        f"| `{code}` | {kind.status.value} | {kind.title}. {kind.detail} | {', '.join(kind.headers)} |"
        for code, kind in PROBLEMS.items()
    )
    header = ("| code | status | meaning, and what the caller can do | headers |", "|---|---|---|---|")
    return "\n".join(("# Problems", "", _INTRODUCTION, "", *header, *rows, ""))


if __name__ == "__main__":
    print(render_markdown(), end="")  # noqa: T201
