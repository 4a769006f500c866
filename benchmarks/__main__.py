"""Run the experiments and print their figures: `python -m benchmarks [--quick] [--only NAME …] [--repeat N]`."""

import argparse
import shutil
import sys
import time
import traceback
from pathlib import Path

import msgspec

from benchmarks import ROOT, results
from benchmarks.experiments import (
    accept,
    burst,
    coupons,
    drain,
    growth,
    notices,
    parts,
    profiles,
    retries,
    scaling,
)
from benchmarks.experiments.common import Experiment
from benchmarks.report import charts, page, tables
from benchmarks.results import Result

EXPERIMENTS = (
    drain.EXPERIMENT,
    accept.EXPERIMENT,
    scaling.PROCESSES,
    burst.BURST,
    burst.SMALL_BURST,
    burst.EAGER_BURST,
    burst.TO_BE_BURST,
    parts.EXPERIMENT,
    growth.EXPERIMENT,
    coupons.EXPERIMENT,
    scaling.ISSUERS,
    notices.EXPERIMENT,
    retries.EXPERIMENT,
    profiles.EXPERIMENT,
)
"""All experiments in the order in which they run."""

_QUICK_ROUNDS = 2
_ENVIRONMENT = Path(".stack/bench-environment")
_OUTPUT = Path(".stack/bench")
_PUBLISHED = ROOT / "docs" / "benchmarks"


def main() -> None:
    """Run each experiment in a fresh environment, one after the other; then write files, charts and page.

    An experiment that fails does not stop the others. Exits with status 1 if one failed.
    """
    arguments = _parse_arguments()
    output = _PUBLISHED if arguments.publish else _OUTPUT
    run = results.describe_run(quick=arguments.quick)  # before the deletion: the page's files belong to the work tree
    shutil.rmtree(output, ignore_errors=True)  # a page shows the results of a single run
    chosen = [each for each in EXPERIMENTS if arguments.only is None or each.name in arguments.only]
    run = msgspec.structs.replace(run, failed=[each.name for each in chosen if not _run(each, arguments, output)])
    results.write(output, "run", run)
    measured = results.read(output, [each.name for each in EXPERIMENTS])
    charts.draw(measured, output)
    page.write(measured, run, output)
    tables.print_targets(measured, run.failed)
    sys.exit(f"failed: {', '.join(run.failed)}" if run.failed else 0)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three minutes: smaller sizes, without long experiments")
    names = [each.name for each in EXPERIMENTS]
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--repeat", type=int, help="rounds of each experiment")
    parser.add_argument("--publish", action="store_true", help="write into docs/ instead of .stack/")
    arguments = parser.parse_args()
    if arguments.publish and (arguments.only or arguments.quick):
        parser.error("the published page is made from a full run: use --publish without --only and --quick")
    return arguments


def _run(experiment: Experiment, arguments: argparse.Namespace, output: Path) -> bool:
    """Run all rounds of an experiment and write its result; return False if it raised an exception."""
    size = experiment.quick if arguments.quick else experiment.full
    if size is None:
        print(f"{experiment.name}: skipped, it takes too long for --quick")
        return True
    rounds = arguments.repeat or (_QUICK_ROUNDS if arguments.quick else experiment.rounds)
    print(f"{experiment.name}: {experiment.description}", flush=True)
    began, measured = time.monotonic(), []
    try:
        for figures in experiment.measure(_ENVIRONMENT, size, rounds):
            measured.append({name: float(value) for name, value in figures.items()})
            print(f"  round {len(measured)} of {rounds}, {time.monotonic() - began:.0f} s", flush=True)
        seconds = time.monotonic() - began
        result = Result(experiment.name, experiment.description, size._asdict(), measured, seconds)
        results.write(output, experiment.name, result)
    except Exception:  # noqa: BLE001  # printed, and the other experiments run
        traceback.print_exc()
        return False
    return True


if __name__ == "__main__":
    main()
