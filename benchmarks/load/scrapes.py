"""Scrapes of processes, as Prometheus makes them."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from urllib.request import urlopen

#: the interval of ops/prometheus/prometheus.yml
_INTERVAL_SECONDS = 3.0
_TIMEOUT_SECONDS = 2.5


@contextmanager
def scraped(ports: Sequence[int]) -> Iterator[None]:
    """Read /metrics of each port every three seconds while the block runs; raise the error of a scrape that failed."""
    ended = threading.Event()

    def scrape() -> None:
        while True:
            for port in ports:
                with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=_TIMEOUT_SECONDS) as response:
                    assert b"coupons_part_available" in response.read()
            if ended.wait(_INTERVAL_SECONDS):
                return

    with ThreadPoolExecutor(1, "scrapes") as executor:
        scraping = executor.submit(scrape)
        try:
            yield
        finally:
            ended.set()
        scraping.result()
