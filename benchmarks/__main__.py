"""Runs the experiments and shows them side by side: `python -m benchmarks [--quick] [--only NAME …] [--repeat N]`."""

import argparse
import shutil
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from benchmarks import results
from benchmarks.catalogue import EXPERIMENTS, QUICK_ROUNDS, Experiment
from benchmarks.report import charts, page, terminal
from benchmarks.results import Result
from stack.parts.surroundings import ROOT

_GROUND = Path(".stack/bench-ground")
_OUT = Path(".stack/bench")
_PUBLISHED = ROOT / "docs" / "benchmarks"


def main() -> None:
    """Each experiment on fresh ground, one after the other; then the tables, the files and the charts.

    Exit status 1 when an experiment failed; it takes none of the others with it.
    """
    told = _told()
    out = _PUBLISHED if told.publish else _OUT
    began = results.circumstances(quick=told.quick)  # first: the page's own files belong to the tree
    shutil.rmtree(out, ignore_errors=True)  # a page is one run's
    failed = [each.name for each in _chosen(told.only) if not _done(each, told, out)]
    circumstances = msgspec.structs.replace(began, failed=failed)
    results.write(out, "circumstances", circumstances)
    found = results.read(out, [each.name for each in EXPERIMENTS])
    charts.draw(found, out)
    page.write(found, circumstances, out)
    terminal.show(found, failed)
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


def _told() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller sizes, without the long ones: three minutes")
    parser.add_argument("--only", nargs="+", choices=[each.name for each in EXPERIMENTS], metavar="NAME")
    parser.add_argument("--repeat", type=int, help="rounds of each experiment")
    parser.add_argument("--publish", action="store_true", help="write into docs/ and not into .stack/")
    told = parser.parse_args()
    if told.publish and (told.only or told.quick):
        parser.error("a page is one whole run's: --publish goes with neither --only nor --quick")
    return told


def _chosen(names: Sequence[str] | None) -> Iterator[Experiment]:
    return (each for each in EXPERIMENTS if names is None or each.name in names)


def _done(experiment: Experiment, told: argparse.Namespace, out: Path) -> bool:
    """Runs an experiment and keeps its result; False when it failed."""
    size = experiment.quick if told.quick else experiment.full
    if size is None:
        print(f"{experiment.name}: left out, it takes too long for a quick run")
        return True
    rounds = told.repeat or (QUICK_ROUNDS if told.quick else experiment.rounds)
    try:
        results.write(out, experiment.name, _run(experiment, size, rounds))
    except Exception:  # noqa: BLE001  # whatever it was is said, and the others go on
        traceback.print_exc()
        return False
    return True


def _run(experiment: Experiment, size: tuple[float, ...], rounds: int) -> Result:
    """All rounds of one experiment, each told when it is over."""
    print(f"{experiment.name}: {experiment.what}", flush=True)
    began, done = time.monotonic(), []
    for figures in experiment.measure(_GROUND, size, rounds):
        done.append({name: float(value) for name, value in figures.items()})
        print(f"  round {len(done)} of {rounds}, {time.monotonic() - began:.0f} s", flush=True)
    return Result(experiment.name, experiment.what, size._asdict(), done, time.monotonic() - began)  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
