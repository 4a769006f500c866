"""Run a module of the service that counts nothing and derives no alerts: `python -m benchmarks.unobserved MODULE …`.

The comparison of the experiment `observation`. The calls remain, and do nothing.
"""

import runpy
import sys

from prometheus_client import Counter, Gauge, Histogram

from service.load_sampler import LoadSampler
from service.metrics import BatchHistogram
from service.usecases.system_alerts import SystemAlerts


def _nothing(*_: object, **__: object) -> None: ...


def main() -> None:
    """Replace what counts, samples and observes, then run the module as `python -m` does."""
    for kind, names in {
        Counter: ("inc",),
        Gauge: ("inc", "dec", "set"),
        Histogram: ("observe",),
        BatchHistogram: ("observe_many",),
        LoadSampler: ("_sample",),
        SystemAlerts: ("start",),
    }.items():
        for name in names:
            setattr(kind, name, _nothing)
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
