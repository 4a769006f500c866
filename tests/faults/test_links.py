"""Rows in which a network link is slow, silent, reset or refused, or loses one response."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import NamedTuple

import pytest

from service.log_events import LogEvent
from stack import ports
from stack.credentials import Credentials
from stack.servers import kafka, postgres
from tests.faults.fault_injection import FaultInjector
from tests.faults.proxy import Direction, Proxy
from tests.faults.rows import row
from tests.faults.scenario import Scenario
from tests.fixtures.running import running
from tests.system import System

#: the API's deadline for an answer: its produce timeout, and as much again for everything else
_ANSWERED_SECONDS = 4.0
#: longer than the issuer's session timeout
_SILENT_SECONDS = 8.0
_LOST_RESPONSES = 5
#: a list of states: a parameter of the statement that writes decisions, and of no other statement of the issuer
_DECISION_WRITE = b"{issued"

LinkFault = Callable[[Proxy], AbstractContextManager[None]]
_LINK_FAULTS: dict[str, LinkFault] = {
    "black hole": Proxy.black_hole,
    "black hole from server to client": lambda proxy: proxy.black_hole(Direction.TO_CLIENT),
    "reset": Proxy.resetting,
    "refused": Proxy.refusing,
}


class Links(NamedTuple):
    """The system and a proxy for each link: Kafka for the API, Kafka for the issuer, PostgreSQL for the issuer."""

    system: System
    api: Proxy
    issuer: Proxy
    database: Proxy


@pytest.fixture(scope="module")
def links(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Links]:
    """Run the API and the issuer behind a proxy to Kafka each, and the issuer behind one to PostgreSQL."""
    upstream = {name: ports.any_free() for name in ("kafka_for_api", "kafka_for_issuer", "postgres")}
    directory = tmp_path_factory.mktemp("links")
    credentials = Credentials.load_or_create(directory / "secrets")
    with ExitStack() as stack:
        api, issuer, database = (stack.enter_context(Proxy(ports.any_free(), port)) for port in upstream.values())
        overrides = {
            "api": {"KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers([api.port])},
            "issuer": {
                "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers([issuer.port]),
                "DATABASE_URL": postgres.application_url(database.port, credentials),
            },
        }
        layout = running(
            directory,
            overrides=overrides,
            kafka_proxies={"api": api.port, "issuer": issuer.port},
            preferred_ports=upstream,
        )
        yield Links(stack.enter_context(layout), api, issuer, database)


@pytest.fixture
def system_under_test(links: Links) -> System:
    """The system that this module's rows run on."""
    return links.system


@row(17, "link from API to Kafka", "latency 200±80 ms", seconds=15)
def test_slow_link_from_api_to_kafka(scenario: Scenario, faults: FaultInjector, links: Links) -> None:
    """Users wait a little longer and get an answer."""
    with scenario.under_load() as load:
        delayed = links.api.counts["delayed"]
        with links.api.delaying(0.2, jitter=0.08):
            before = load.accepted
            scenario.system.eventually(lambda: load.accepted > before + 30)
            scenario.check(scenario.system.request_issuance(scenario.system.make_coupon(1), 1), "a user gets an answer")
        faults.confirm(links.api.counts["delayed"] > delayed, "chunks were delayed")
        scenario.recovers(since=time.monotonic())


@row(17, "link from API to Kafka", "broken", seconds=25)
@pytest.mark.parametrize("broken", _LINK_FAULTS.values(), ids=_LINK_FAULTS)
def test_broken_link_from_api_to_kafka(
    scenario: Scenario, faults: FaultInjector, links: Links, broken: LinkFault
) -> None:
    """The API answers 503 within the deadline, even if the link is silent; the repeat is accepted afterwards."""
    coupon = scenario.system.make_coupon(5)
    with scenario.under_load():
        with broken(links.api):
            scenario.becomes_unready("api")
            since = time.monotonic()
            answer = scenario.system.request_issuance(coupon, 1)
            scenario.check_in_time(since, _ANSWERED_SECONDS, answer is not None and answer.status_code == 503, answer)
            faults.confirm(
                answer is not None and "retry-after" in answer.headers, "the answer has a Retry-After header"
            )
        scenario.recovers(since=time.monotonic())
        scenario.check(
            scenario.system.wait_until_final(scenario.submit(coupon, 1))["state"] == "issued", "the repeat is issued"
        )


@row(18, "link from issuer to Kafka", "latency 200±80 ms", seconds=20)
def test_slow_link_from_issuer_to_kafka(scenario: Scenario, faults: FaultInjector, links: Links) -> None:
    """The issuer issues, a little later."""
    coupon = scenario.system.make_coupon(5)
    with scenario.under_load():
        delayed = links.issuer.counts["delayed"]
        with links.issuer.delaying(0.2, jitter=0.08):
            scenario.check(scenario.system.wait_until_final(scenario.submit(coupon, 1))["state"] == "issued", "issued")
        faults.confirm(links.issuer.counts["delayed"] > delayed, "chunks were delayed")
        scenario.recovers(since=time.monotonic())


@row(18, "link from issuer to Kafka", "broken for longer than the session timeout", seconds=35)
@pytest.mark.parametrize("broken", _LINK_FAULTS.values(), ids=_LINK_FAULTS)
def test_broken_link_from_issuer_to_kafka(
    scenario: Scenario, faults: FaultInjector, links: Links, broken: LinkFault
) -> None:
    """The issuer becomes unready, skips nothing, keeps running, and resumes at the database's offsets."""
    coupon = scenario.system.make_coupon(5)
    with scenario.under_load():
        with broken(links.issuer):
            scenario.becomes_unready("issuer")
            request_id = scenario.submit(coupon, 1)
            time.sleep(_SILENT_SECONDS)  # the length of the outage is the fault
            faults.confirm(
                scenario.system.read_status(request_id)["state"] == "queued", "nothing is decided in the meantime"
            )
            scenario.becomes_unready("issuer")  # still: an issuer that has lost all partitions stays unready
        scenario.recovers(since=time.monotonic())
    scenario.check(scenario.system.wait_until_final(request_id)["state"] == "issued", "the queued request is issued")


@row(22, "link from issuer to PostgreSQL", f"the response to COMMIT is lost ×{_LOST_RESPONSES}", seconds=25)
def test_commit_response_lost(scenario: Scenario, faults: FaultInjector, links: Links) -> None:
    """The issuer cannot know that its batch is committed: it reads its offsets again and decides nothing twice."""
    with scenario.under_load(per_second=120, at_once=32):
        for _ in range(_LOST_RESPONSES):
            drop_commit_response(scenario, links.database)
        scenario.system.eventually(lambda: count_pauses(scenario) >= _LOST_RESPONSES)
        faults.confirm(count_pauses(scenario) >= _LOST_RESPONSES, "the issuer got no response")
        scenario.recovers(since=time.monotonic())


@row(22, "link from issuer to PostgreSQL", "broken", seconds=30)
@pytest.mark.parametrize("broken", _LINK_FAULTS.values(), ids=_LINK_FAULTS)
def test_broken_link_from_issuer_to_postgres(
    scenario: Scenario, faults: FaultInjector, links: Links, broken: LinkFault
) -> None:
    """The issuer gives up a silent link like a reset one; no attempt is counted."""
    coupon = scenario.system.make_coupon(5)
    with scenario.under_load():
        with broken(links.database):
            scenario.becomes_unready("issuer")
            request_id = scenario.submit(coupon, 1)
            faults.confirm(
                scenario.system.read_status(request_id)["state"] == "queued", "nothing is decided in the meantime"
            )
        scenario.recovers(since=time.monotonic())
    page = scenario.system.wait_until_final(request_id)
    scenario.check((page["state"], page["attempts"]) == ("issued", 1), page)


def drop_commit_response(scenario: Scenario, proxy: Proxy) -> None:
    """Drop the response to the next COMMIT of a batch, and wait until that has happened."""
    before = proxy.counts["responses dropped"]
    proxy.drop_response(to=b"COMMIT", after=_DECISION_WRITE)
    scenario.system.eventually(lambda: proxy.counts["responses dropped"] > before)


def count_pauses(scenario: Scenario) -> int:
    """Return how often the issuer has paused because of a system failure."""
    return scenario.process_log("issuer").count(LogEvent.ISSUER_PAUSED)
