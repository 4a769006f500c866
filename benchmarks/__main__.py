"""Run the experiments and print their figures: `python -m benchmarks [--quick] [--only NAME …] [--repeat N]`.

With `--against REV`, measure this work tree and another commit in turn, and print the ratio of each figure.
"""

import argparse
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from benchmarks import ROOT, against, checkout, results
from benchmarks.experiments import (
    accept,
    authentication,
    backlog,
    burst,
    coupons,
    drain,
    growth,
    hostile,
    memory,
    notices,
    observation,
    parts,
    profiles,
    request_cost,
    retries,
    scaling,
    waiting,
)
from benchmarks.experiments.common import Experiment
from benchmarks.report import charts, page, tables
from benchmarks.results import Result

EXPERIMENTS = (
    drain.EXPERIMENT,
    backlog.EXPERIMENT,
    accept.EXPERIMENT,
    request_cost.EXPERIMENT,
    authentication.EXPERIMENT,
    memory.EXPERIMENT,
    hostile.EXPERIMENT,
    waiting.EXPERIMENT,
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
    observation.EXPERIMENT,
    retries.EXPERIMENT,
    profiles.EXPERIMENT,
)
"""All experiments in the order in which they run."""

_QUICK_ROUNDS = 2
_ENVIRONMENT = Path(".stack/bench-environment")
_OUTPUT = Path(".stack/bench")
_EXPORTS = Path(".stack/against")
_COMPARED = Path(".stack/bench-against")
_PUBLISHED = ROOT / "docs" / "benchmarks"


def main() -> None:
    """Run each experiment, one after the other; an experiment that fails does not stop the others.

    Exits with status 1 if one failed.
    """
    arguments = _parse_arguments()
    chosen = [each for each in EXPERIMENTS if arguments.only is None or each.name in arguments.only]
    failed = _compare(chosen, arguments) if arguments.against else _measure(chosen, arguments)
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="four minutes: smaller sizes, without long experiments")
    names = [each.name for each in EXPERIMENTS]
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--repeat", type=int, help="rounds of each experiment")
    parser.add_argument("--publish", action="store_true", help="write into docs/ instead of .stack/")
    any_commit = [each.name for each in EXPERIMENTS if each.any_commit]
    parser.add_argument("--against", metavar="REV", help=f"alternate with another commit: {', '.join(any_commit)}")
    arguments = parser.parse_args()
    if arguments.publish and (arguments.only or arguments.quick or arguments.against):
        parser.error("the published page is made from a full run: use --publish without --only, --quick and --against")
    if arguments.against:
        arguments.only = arguments.only or any_commit
        if unsupported := set(arguments.only) - set(any_commit):
            parser.error(f"--against cannot measure {', '.join(sorted(unsupported))}")
        try:
            arguments.against = checkout.resolve_commit(arguments.against)
        except ValueError as error:
            parser.error(str(error))
    return arguments


def _measure(chosen: Sequence[Experiment], arguments: argparse.Namespace) -> list[str]:
    """Run each experiment in a fresh environment; write files, charts and page; return the names of failed ones."""
    output = _PUBLISHED if arguments.publish else _OUTPUT
    run = results.describe_run(quick=arguments.quick)  # before the deletion: the page's files belong to the work tree
    shutil.rmtree(output, ignore_errors=True)  # a page shows the results of a single run
    failed = [each.name for each in chosen if not _run(each, arguments, partial(_measure_rounds, output))]
    run = msgspec.structs.replace(run, failed=failed)
    results.write(output, "run", run)
    measured = results.read(output, [each.name for each in EXPERIMENTS])
    charts.draw(measured, output)
    page.write(measured, run, output)
    tables.print_targets(measured, failed)
    return failed


def _compare(chosen: Sequence[Experiment], arguments: argparse.Namespace) -> list[str]:
    """Run each experiment with this work tree and with another commit in turn; return the names of failed ones."""
    other = checkout.export(arguments.against, _EXPORTS)
    shutil.rmtree(_COMPARED, ignore_errors=True)
    results.write(_COMPARED, "run", results.describe_run(quick=arguments.quick))

    def compare(experiment: Experiment, size: Any, rounds: int) -> None:
        against.compare(experiment, other, size, rounds, _ENVIRONMENT, _COMPARED)

    return [each.name for each in chosen if not _run(each, arguments, compare)]


def _run(experiment: Experiment, arguments: argparse.Namespace, run: Callable[[Experiment, Any, int], None]) -> bool:
    """Call `run` with the experiment's size and number of rounds; return False if it raised an exception."""
    size = experiment.quick if arguments.quick else experiment.full
    if size is None:
        print(f"{experiment.name}: skipped, it takes too long for --quick")
        return True
    rounds = arguments.repeat or (_QUICK_ROUNDS if arguments.quick else experiment.rounds)
    print(f"{experiment.name}: {experiment.description}", flush=True)
    try:
        run(experiment, size, rounds)
    except Exception:  # noqa: BLE001  # printed, and the other experiments run
        traceback.print_exc()
        return False
    return True


def _measure_rounds(output: Path, experiment: Experiment, size: Any, rounds: int) -> None:
    """Run all rounds of an experiment and write its result."""
    began, measured = time.monotonic(), []
    for figures in experiment.measure(_ENVIRONMENT, size, rounds):
        measured.append({name: float(value) for name, value in figures.items()})
        print(f"  round {len(measured)} of {rounds}, {time.monotonic() - began:.0f} s", flush=True)
    seconds = time.monotonic() - began
    result = Result(experiment.name, experiment.description, size._asdict(), measured, seconds)
    results.write(output, experiment.name, result)


if __name__ == "__main__":
    main()
