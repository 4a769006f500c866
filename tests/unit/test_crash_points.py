"""Crash points act once, where they are armed, and nowhere else."""

import signal
import subprocess
import sys
from pathlib import Path

_REACHES = (
    "import sys\nfrom pathlib import Path\nfrom service.crash_points import Armed, CrashPoint, reach\n"
    "Armed.folder = Path(sys.argv[1])\nreach(CrashPoint.ISSUER_WRITTEN)\nprint('went on')\n"
)


def test_an_armed_point_kills_once(tmp_path: Path) -> None:
    """The process ends by SIGKILL at the point; the next process finds nothing armed and continues."""
    (tmp_path / "issuer.written.kill").touch()

    killed, survivor = _run(tmp_path), _run(tmp_path)

    assert (killed.returncode, killed.stdout) == (-signal.SIGKILL, "")
    assert (survivor.returncode, survivor.stdout) == (0, "went on\n")


def test_an_armed_point_does_not_affect_another(tmp_path: Path) -> None:
    """A file that arms one point does not arm another."""
    (tmp_path / "issuer.committed.kill").touch()

    assert _run(tmp_path).returncode == 0
    assert (tmp_path / "issuer.committed.kill").exists()


def _run(folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", _REACHES, str(folder)], capture_output=True, text=True, timeout=20, check=False
    )
