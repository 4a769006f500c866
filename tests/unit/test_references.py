"""Every reference in documents, docstrings and comments leads to something that exists."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("service", "workers", "stack", "demo", "testkit", "benchmarks", "tests")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
GLOSSARY = ROOT / "docs" / "glossary.md"

_FENCED = re.compile(r"^```.*?^```[^\n]*$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^()\s]+)\)")
_ELSEWHERE = re.compile(r"[a-z]+:")
_CODE_SPAN = re.compile(r"`([^`\n]+)`")
_HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)
#: a file by its ending, or any path that begins with a folder of ours
_PATH = re.compile(
    rf"[\w.*-]+(?:/[\w.*-]+)*\.(?:py|md|sql|lua|toml|yml|patch|lock)|(?:{'|'.join([*PACKAGES, 'docs'])})/[\w./*-]*"
)
#: made at run time, so they are absent from a fresh clone
_RUNTIME = (".stack/", ".venv/")
_MODULE = re.compile(rf"python -m ((?:{'|'.join(PACKAGES)})[\w.]*)")
_DECISION = re.compile(r"(?:docs/decisions/|\bADRs?\s+)(\d{4})")
_NUMBERED = re.compile(r"(?P<where>RFC \d+, |[\w/.-]+\.md, )?\b(?:[Ss]ection|[Ss]tep)s?\s+(?P<number>\d+)(?![\w%])")
_PROMISE = re.compile(r"\bP\d+\b")


class Prose(NamedTuple):
    """A text that people read: a document, or one docstring or comment."""

    path: Path
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}"


def test_every_link_leads_to_a_file_or_heading() -> None:
    """A reader of the documents can follow each link."""
    broken = [
        f"{path.relative_to(ROOT)}: {link}"
        for path in DOCUMENTS
        for link in _LINK.findall(_unfenced(path))
        if not _ELSEWHERE.match(link) and not _resolves(path, link)
    ]

    assert not broken, "\n".join(broken)


def test_every_path_in_a_document_exists() -> None:
    """Paths are complete from the root; a pattern matches something; `python -m` names a module that is there."""
    absent = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in DOCUMENTS
        for span in _CODE_SPAN.findall(_unfenced(path))
        for name in _named_in(span)
        if not any(ROOT.glob(name.rstrip("/")))
    ]

    assert not absent, "\n".join(absent)


def test_no_text_cites_a_section_or_step_that_is_not_there() -> None:
    """A number needs its document: an RFC, or one of ours with a heading of that number."""
    dangling = [
        f"{prose}: {match[0]}"
        for prose in _prose()
        for match in _NUMBERED.finditer(prose.text)
        if not _is_numbered_in(prose, match)
    ]

    assert not dangling, "\n".join(dangling)


def test_every_decision_that_is_cited_exists() -> None:
    """One file for each number of a decision."""
    numbers = [path.name[:4] for path in (ROOT / "docs" / "decisions").glob("*.md")]
    unknown = [
        f"{prose}: {number}"
        for prose in _prose()
        for number in _DECISION.findall(prose.text)
        if numbers.count(number) != 1
    ]

    assert not unknown, "\n".join(unknown)


def test_every_promise_that_is_cited_is_in_the_glossary() -> None:
    """P1 to P7 mean what docs/glossary.md says, and nothing else."""
    defined = {match[0] for heading in _HEADING.findall(_unfenced(GLOSSARY)) if (match := _PROMISE.match(heading))}
    undefined = [
        f"{prose}: {name}" for prose in _prose() for name in _PROMISE.findall(prose.text) if name not in defined
    ]

    assert len(defined) == 7
    assert not undefined, "\n".join(undefined)


@pytest.mark.parametrize(
    ("heading", "anchor"),
    [
        ("What dies, and what happens", "what-dies-and-what-happens"),
        ("P1 Never over-issued", "p1-never-over-issued"),
        ("`log_id` of a topic", "log_id-of-a-topic"),
        ("보고서와의 관계", "보고서와의-관계"),
    ],
)
def test_headings_have_the_anchors_of_github(heading: str, anchor: str) -> None:
    """Lower case, spaces to hyphens, no punctuation; letters of any language stay."""
    assert _anchor(heading) == anchor


def _resolves(path: Path, link: str) -> bool:
    name, _, anchor = link.partition("#")
    target = (path.parent / name).resolve() if name else path
    return target.exists() and (not anchor or anchor in {_anchor(text) for text in _headings(target)})


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@cache
def _unfenced(path: Path) -> str:
    """A document without its code blocks, whose paths are those of a reader's shell."""
    return _FENCED.sub("", path.read_text())


def _headings(path: Path) -> list[str]:
    return _HEADING.findall(_unfenced(path))


def _named_in(span: str) -> Iterator[str]:
    """The paths of a code span: the span itself, or the module that it runs."""
    if span.startswith(_RUNTIME):
        return
    if match := _PATH.fullmatch(span):
        yield match[0]
    for module in _MODULE.findall(span):
        name = module.rstrip(".").replace(".", "/")
        yield f"{name}.py" if (ROOT / f"{name}.py").exists() else f"{name}/__main__.py"


def _is_numbered_in(prose: Prose, match: re.Match[str]) -> bool:
    """Whether the cited document has the number; a document may cite its own headings without its name."""
    where = (match["where"] or "").removesuffix(", ")
    if where.startswith("RFC"):
        return True
    cited = ROOT / where if where else prose.path
    if cited.suffix != ".md" or not cited.exists():
        return False
    return any(re.match(rf"{match['number']}\b", heading) for heading in _headings(cited))


@cache
def _prose() -> tuple[Prose, ...]:
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*")]
    scripts = [path for path in files if path.suffix in (".sql", ".lua")]
    modules = [*ROOT.glob("*.py"), *(path for path in files if path.suffix == ".py")]
    return (
        *(Prose(path, 1, _unfenced(path)) for path in DOCUMENTS),
        *(Prose(path, 1, path.read_text()) for path in scripts),
        *(prose for path in sorted(modules) for prose in _prose_of(path)),
    )


def _prose_of(path: Path) -> Iterator[Prose]:
    """The docstrings and comments of a module."""
    source = path.read_text()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node, clean=False)
            if text:
                yield Prose(path, node.body[0].lineno, text)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield Prose(path, token.start[0], token.string)
