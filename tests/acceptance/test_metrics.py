"""The metrics of the running system: both ports show a sale, its retry and its notices; PostgreSQL may be away."""

import time
from functools import partial

import httpx
from prometheus_client.parser import text_string_to_metric_families

from service.usecases.alerts import Alert
from tests.system import System
from workers.queues import Queue

Samples = dict[tuple[str, ...], float]


def test_both_ports_show_a_sale(system: System) -> None:
    """Counts of the API, of the issuer, and of the workers, which have no port."""
    api, issuer = system.stack.api_url, system.stack.issuer_url
    api_before, issuer_before = scrape(system, api), scrape(system, issuer)
    coupon = system.make_coupon(quantity=2)
    failing = system.request_until_answered(coupon, 1, fault="22012 1")
    assert system.wait_until_final(failing.json()["request_id"])["attempts"] == 2
    assert system.request_until_answered(coupon, 1).status_code == 409

    def grown(samples: Samples, before: Samples, *key: str) -> float:
        return samples.get(key, 0) - before.get(key, 0)

    def has_all() -> bool:
        found = scrape(system, api)
        return (
            grown(found, api_before, "coupons_retry_attempts_total", "attempt=2") == 1
            and grown(found, api_before, "coupons_webhook_attempts_total", "outcome=accepted") >= 1
        )

    system.eventually(has_all)
    from_api, from_issuer = scrape(system, api), scrape(system, issuer)
    for code, count in (("accepted", 1), ("duplicate", 1)):
        assert grown(from_api, api_before, "coupons_issue_responses_total", f"code={code}") == count
    assert grown(from_api, api_before, "coupons_accept_seconds_count") <= 1  # a request that waits for a fill is not
    assert grown(from_issuer, issuer_before, "coupons_decision_wait_seconds_count") == 1
    assert grown(from_issuer, issuer_before, "coupons_decisions_total", "code=", "state=retrying") == 1
    for samples in (from_api, from_issuer):
        assert all(samples["coupons_part_available", f"part={part}"] for part in ("postgresql", "redis", "kafka"))
        assert samples["coupons_sweep_age_seconds",] < 10
    assert {from_issuer["coupons_celery_queue_messages", f"queue={queue}"] for queue in Queue}
    assert from_issuer["coupons_issuer_ready",] == 1
    for samples in (from_api, from_issuer):
        assert all(("coupons_alert_active", f"alert={alert}") in samples for alert in Alert)
    assert all(from_api["coupons_part_ready", f"part={part}"] for part in ("postgresql", "redis", "kafka"))


def test_a_queue_grows_old_while_no_worker_takes_its_messages(system: System) -> None:
    """Those of beat: one each second. A queue without messages has no age."""
    api = system.stack.api_url

    def age(queue: Queue) -> float | None:
        return scrape(system, api).get(("coupons_celery_queue_age_seconds", f"queue={queue}"))

    system.stack.stop("worker")
    try:
        system.eventually(lambda: (age(Queue.MAINTENANCE) or 0) > 3)
        assert age(Queue.DEAD_LETTER) == 0
    finally:
        system.stack.start("worker")
    system.eventually(lambda: age(Queue.MAINTENANCE) == 0)


def test_a_scrape_without_postgresql_has_the_rest_in_time(system: System) -> None:
    """What an operator needs most is there while something is wrong."""
    system.stack.stop("postgres")
    try:
        for url in (system.stack.api_url, system.stack.issuer_url):
            system.eventually(partial(_lacks_postgresql, system, url))
            began = time.monotonic()
            samples = scrape(system, url)
            assert time.monotonic() - began < 2
            assert samples["coupons_part_available", "part=redis"] == 1
            assert ("coupons_issued_requests",) not in samples
            assert ("coupons_sweep_age_seconds",) in samples
        # the API exports alerts of its last check of PostgreSQL, which is up to a second older than the scrape
        dead_letters = ("coupons_alert_active", "alert=dead_letters")
        system.eventually(lambda: dead_letters not in scrape(system, system.stack.api_url))
    finally:
        system.stack.start("postgres")

    system.eventually(lambda: ("coupons_issued_requests",) in scrape(system, system.stack.api_url))


def _lacks_postgresql(system: System, url: str) -> bool:
    return scrape(system, url)["coupons_part_available", "part=postgresql"] == 0


def scrape(system: System, url: str) -> Samples:
    """Return the samples of a port by name and labels."""
    text = httpx.get(f"{url}/metrics", auth=system.credentials).raise_for_status().text
    return {
        (sample.name, *(f"{name}={value}" for name, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
