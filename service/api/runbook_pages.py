"""Renders the runbooks, which are part of the package, as pages for operators."""

from collections.abc import Iterable, Iterator
from functools import cache
from importlib.resources import files

from markdown_it import MarkdownIt
from markdown_it.token import Token

_SUFFIX = ".md"
_TEXTS = {
    file.name.removesuffix(_SUFFIX): file.read_text()
    for file in files(__package__).joinpath("runbooks").iterdir()
    if file.name.endswith(_SUFFIX)
}
_MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table")
#: its addresses are relative, so that they are right behind a proxy that changes the path
_PAGE = """\
<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <meta name="color-scheme" content="light dark">
  <meta name="robots" content="noindex">
  <title>{name} · Coupons</title>
  <link rel="icon" type="image/svg+xml" href="../assets/dashboard.svg">
  <link rel="stylesheet" href="../assets/dashboard.css">
</head>
<body>
  <header>
    <p class="title"><a href="../../dashboard">Coupons</a></p>
    <nav aria-label="Pages"><a href="README">All runbooks</a></nav>
  </header>
  <main class="runbook">
{content}  </main>
</body>
</html>
"""


@cache
def render_runbook(name: str) -> str:
    """Return the page of the runbook with this name, that of an alert or README; raise KeyError if there is none."""
    tokens = _MARKDOWN.parse(_TEXTS[name])
    for token in tokens:
        if token.children:
            token.children = [*_with_links_to_runbooks(token.children)]
    return _PAGE.format(name=name, content=_MARKDOWN.renderer.render(tokens, _MARKDOWN.options, {}))


def _with_links_to_runbooks(tokens: Iterable[Token]) -> Iterator[Token]:
    """Yield the tokens of a line. Of a link to another page of the repository only the text is left."""
    leads_elsewhere = False
    for token in tokens:
        if token.type == "link_open":
            name = str(token.attrs["href"]).removesuffix(_SUFFIX)
            token.attrs["href"] = name
            leads_elsewhere = name not in _TEXTS
        if not (leads_elsewhere and token.type in {"link_open", "link_close"}):
            yield token
