"""The report of a run: tables, charts and the page docs/benchmarks.md, all computed from the results."""
