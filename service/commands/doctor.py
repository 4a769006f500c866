"""`coupons doctor`: what is wrong with a set-up, and what to do."""

from collections.abc import Iterator

import typer

from service import resources, startup
from service.commands.console import JsonOption, Mark, print_json, print_rows
from service.domain.errors import Misconfigured
from service.domain.finding import Finding, Part, Verdict

_MARKS = {
    Verdict.OK: Mark.OK,
    Verdict.WARNING: Mark.WARNING,
    Verdict.FAILED: Mark.FAILED,
    Verdict.SKIPPED: Mark.SKIPPED,
}


def doctor(*, as_json: JsonOption = False) -> None:
    """Check settings, connections, rights, schema, topics, keys, clocks, issuers and workers; say what to do.

    It changes no coupon and no request. The exit status is 1 if a check fails.
    """
    findings = list(_examine())
    ok = not any(one.verdict is Verdict.FAILED for one in findings)
    if as_json:
        print_json({"ok": ok, "findings": findings})
    else:
        rows = [(one.part, _MARKS[one.verdict], _text(one)) for one in findings]
        print_rows(("Part", "Result", "Found, and what to do"), rows, wrap_last=True)
    raise typer.Exit(0 if ok else 1)


def _examine() -> Iterator[Finding]:
    try:
        settings = startup.configure_process()
    except Misconfigured as error:
        for fault in error.faults:
            yield Finding(Part.SETTINGS, Verdict.FAILED, fault, "correct it in the environment of every process")
        return
    with resources.open_doctor(settings) as examined:
        yield from examined.examine()


def _text(finding: Finding) -> str:
    return f"{finding.found}: {finding.remedy}" if finding.remedy else finding.found
