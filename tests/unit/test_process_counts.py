"""Counts of all processes that share a port, from the files that they write."""

import os
import subprocess
import sys
from pathlib import Path

from service.metrics import ISSUE_RESPONSES, MULTIPROCESS_DIRECTORY_VARIABLE
from service.process_counts import count_by_label

_COUNT = "from service.metrics import ISSUE_RESPONSES as counter; counter.labels('{}').inc({})"
_PRINT = "; from service.process_counts import count_by_label; print(sorted(count_by_label(counter).items()))"


def _run(program: str, directory: Path) -> str:
    environment = {**os.environ, MULTIPROCESS_DIRECTORY_VARIABLE: str(directory)}
    return subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_the_counts_of_all_processes_are_added(tmp_path: Path) -> None:
    """Also of one that has ended."""
    _run(_COUNT.format("accepted", 3), tmp_path)

    assert _run(_COUNT.format("unavailable", 2) + _PRINT, tmp_path) == "[('accepted', 3.0), ('unavailable', 2.0)]"


def test_a_single_process_has_its_own_counts() -> None:
    before = count_by_label(ISSUE_RESPONSES).get("unavailable", 0.0)
    ISSUE_RESPONSES.labels("unavailable").inc()

    assert count_by_label(ISSUE_RESPONSES)["unavailable"] == before + 1
