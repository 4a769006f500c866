"""Reads a counter as the sum of all processes that share this process's port."""

import os
from collections.abc import Mapping
from pathlib import Path

from prometheus_client import Counter
from prometheus_client.multiprocess import MultiProcessCollector

from service.metrics import MULTIPROCESS_DIRECTORY_VARIABLE


def count_by_label(counter: Counter) -> Mapping[str, float]:
    """Return the counts of a counter with one label, by that label; it may read files."""
    (family,) = counter.collect()
    if directory := os.environ.get(MULTIPROCESS_DIRECTORY_VARIABLE):
        # those of gauges and histograms are left out: they are larger
        files = [str(path) for path in Path(directory).glob("counter_*.db")]
        merged = MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]
        samples = [sample for each in merged if each.name == family.name for sample in each.samples]
    else:
        samples = family.samples
    return {next(iter(sample.labels.values())): sample.value for sample in samples}
