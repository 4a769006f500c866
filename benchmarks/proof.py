"""How long the proof takes and how much memory it needs: `python -m benchmarks.proof --requests 1000000`."""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from benchmarks.drain import drained, fill, ground
from service.usecases.history import Told

_DIRECTORY = Path(".stack/proof")


def main() -> None:
    """Issues so many requests, then proves them in a process of its own whose peak of memory is read."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1_000_000)
    wanted = parser.parse_args().requests
    with ground(_DIRECTORY) as (stack, store):
        history = _DIRECTORY / "history"
        _write(history, fill(stack, store, wanted))
        stack.add_issuer("issuer-0")
        drained(store, wanted, within_seconds=wanted / 2_000)
        seconds, peak_mb = _prove(stack.environment, history)
    print(f"{wanted} requests proved in {seconds:.0f} s, {wanted / seconds:,.0f}/s, with {peak_mb:.0f} MB at most")


def _write(path: Path, told: Iterable[Told]) -> None:
    with path.open("wb") as lines:
        lines.writelines(msgspec.json.encode(one) + b"\n" for one in told)


def _prove(environment: Mapping[str, str], history: Path) -> tuple[float, float]:
    """Seconds of `coupons verify`, and its largest resident size in megabytes (getrusage(2), Linux: kilobytes)."""
    began = time.monotonic()
    command = [sys.executable, "-m", "service.cli", "verify", "--history", str(history)]
    process = subprocess.Popen(command, env=environment)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit("the proof failed")
    return time.monotonic() - began, used.ru_maxrss / 1024


if __name__ == "__main__":
    main()
