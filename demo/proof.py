"""The proof: the service's own verification of its promises, run as an operator would, against what users were told."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

VERIFY_SECONDS = 60.0


class Check(msgspec.Struct, frozen=True):
    """A promise, or part of one, and the numbers it is judged by."""

    promise: str
    what: str
    ok: bool
    numbers: dict[str, int]


class _Proof(msgspec.Struct, frozen=True):
    ok: bool
    checks: list[Check]


def prove(environment: Mapping[str, str], history: Path) -> list[Check]:
    """Every check of `coupons verify`; one that failed if the command itself did."""
    command = [sys.executable, "-m", "service.cli", "verify", "--history", str(history), "--json"]
    ended = subprocess.run(command, env=environment, capture_output=True, timeout=VERIFY_SECONDS, check=False)
    return understood(ended.returncode, ended.stdout, ended.stderr)


def understood(status: int, output: bytes, errors: bytes) -> list[Check]:
    """The checks that the command printed; its exit status must agree with them."""
    try:
        proof = msgspec.json.decode(output, type=_Proof)
    except msgspec.DecodeError:
        said = errors.decode(errors="replace").strip().rpartition("\n")[2]
        return [Check("P1–P5", f"the verification ended with status {status}: {said}", ok=False, numbers={})]
    agrees = proof.ok == (status == 0) == all(check.ok for check in proof.checks) and proof.checks
    return [*proof.checks, *([] if agrees else [_disagrees(status)])]


def _disagrees(status: int) -> Check:
    return Check(
        "P1–P5", "there are checks, and the exit status agrees with them", ok=False, numbers={"exit_status": status}
    )
