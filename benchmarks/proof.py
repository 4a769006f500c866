"""How long the proof takes and how much memory it needs: `python -m benchmarks.proof --requests 1000000`."""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import msgspec

from benchmarks import decided
from benchmarks.ground import prepared
from benchmarks.records import Asked, append, minted
from service.verification.history import ClientAnswer

_DIRECTORY = Path(".stack/proof")


def main() -> None:
    """Issues so many requests, then proves them in a process of its own whose peak of memory is read."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1_000_000)
    wanted = parser.parse_args().requests
    with prepared(_DIRECTORY) as ground:
        history, coupon_id = _DIRECTORY / "history", ground.coupon(wanted)
        with history.open("wb") as lines:
            asked = minted(coupon_id, range(1, wanted + 1))
            append(ground.stack.kafka_bootstrap_servers, _noted(asked, coupon_id, lines))
        ground.issuer()
        decided.await_issued(ground, coupon_id, wanted, within_seconds=wanted / 2_000)
        seconds, peak_mb = _prove(ground.stack.environment, history)
    print(f"{wanted} requests proved in {seconds:.0f} s, {wanted / seconds:,.0f}/s, with {peak_mb:.0f} MB at most")


def _noted(asked: Iterable[Asked], coupon_id: int, lines: BinaryIO) -> Iterator[Asked]:
    """Writes down what each user would be told, in passing."""
    for one in asked:
        told = ClientAnswer(one.user_id, coupon_id, "accepted", request_id=one.request_id)
        lines.write(msgspec.json.encode(told) + b"\n")
        yield one


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
