"""Time and peak memory of the verification: `python -m benchmarks.proof --requests 1000000`."""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import msgspec

from benchmarks import decisions
from benchmarks.environment import start_environment
from benchmarks.load.records import RequestRecord, append, build_records
from service.verification.history import ClientAnswer

_DIRECTORY = Path(".stack/proof")


def main() -> None:
    """Issue the requests, then run `coupons verify` in a process of its own and print its time and peak memory."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.proof", description=__doc__)
    parser.add_argument("--requests", type=int, default=1_000_000)
    count = parser.parse_args().requests
    with start_environment(_DIRECTORY) as environment:
        history, coupon_id = _DIRECTORY / "history", environment.create_coupon(count)
        with history.open("wb") as lines:
            records = build_records(coupon_id, range(1, count + 1))
            append(environment.stack.kafka_bootstrap_servers, _write_history(records, coupon_id, lines))
        environment.start_issuer()
        decisions.wait_for_issued(environment, coupon_id, count, timeout_seconds=count / 2_000)
        seconds, peak_mb = _verify(environment.stack.environment, history)
    print(f"{count} requests verified in {seconds:.0f} s, {count / seconds:,.0f}/s, with a peak of {peak_mb:.0f} MB")


def _write_history(records: Iterable[RequestRecord], coupon_id: int, lines: BinaryIO) -> Iterator[RequestRecord]:
    """Pass the records through, and write the API's answer to each user into the client history."""
    for record in records:
        answer = ClientAnswer(record.user_id, coupon_id, "accepted", request_id=record.request_id)
        lines.write(msgspec.json.encode(answer) + b"\n")
        yield record


def _verify(environ: Mapping[str, str], history: Path) -> tuple[float, float]:
    """Return seconds of `coupons verify` and its peak resident memory in megabytes (getrusage(2), Linux: kilobytes)."""
    began = time.monotonic()
    command = [sys.executable, "-m", "service.cli", "verify", "--history", str(history)]
    process = subprocess.Popen(command, env=environ)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit("the verification failed")
    return time.monotonic() - began, used.ru_maxrss / 1024


if __name__ == "__main__":
    main()
