"""The links between processes and their parts: slow, silent, cut, refused, and cut at the worst moment."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import NamedTuple

import pytest

from stack import ports
from stack.parts import kafka, postgres
from tests.faults.hands import Hands
from tests.faults.ledger import Invariant
from tests.faults.proxy import Proxy, Way
from tests.faults.rows import row
from tests.faults.scene import Scene
from tests.fixtures.running import running
from tests.system import System

#: the API's deadline for an answer: its time to append, and as much again for all else
_ANSWERED_SECONDS = 4.0
#: above the issuer's session timeout
_SILENT_SECONDS = 8.0
_CUTS = 5
#: the list of final states: a parameter of the statement that writes decisions, and of no other of the issuer's
_ISSUING = b"{issued"

Bend = Callable[[Proxy], AbstractContextManager[None]]
_BROKEN: dict[str, Bend] = {
    "black hole": Proxy.holding,
    "black hole on the way back": lambda proxy: proxy.holding(Way.BACK),
    "reset": Proxy.cutting,
    "refused": Proxy.refusing,
}


class Links(NamedTuple):
    """The proxies, by whose link they stand in."""

    system: System
    api: Proxy
    issuer: Proxy
    database: Proxy


@pytest.fixture(scope="module")
def links(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Links]:
    """API and issuer reach Kafka, and the issuer PostgreSQL, through a proxy each."""
    upstream = {name: ports.any_free() for name in ("kafka_for_api", "kafka_for_issuer", "postgres")}
    with ExitStack() as opened:
        api, issuer, database = (opened.enter_context(Proxy(ports.any_free(), port)) for port in upstream.values())
        overrides = {
            "api": {"KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers([api.port])},
            "issuer": {
                "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers([issuer.port]),
                "DATABASE_URL": postgres.url(database.port),
            },
        }
        layout = running(
            tmp_path_factory.mktemp("links"),
            overrides=overrides,
            kafka_proxies={"api": api.port, "issuer": issuer.port},
            preferred_ports=upstream,
        )
        yield Links(opened.enter_context(layout), api, issuer, database)


@pytest.fixture
def ground(links: Links) -> System:
    """What the rows of this module run on."""
    return links.system


@row(17, "Kafka's link to the API", "latency 200±80 ms", seconds=15)
def test_a_slow_link_of_the_api(scene: Scene, hands: Hands, links: Links) -> None:
    """Users wait a little longer and are served."""
    with scene.users() as crowd:
        felt = links.api.felt["delayed"]
        with links.api.delaying(0.2, jitter=0.08):
            before = crowd.accepted
            scene.system.eventually(lambda: crowd.accepted > before + 30)
            scene.demand(scene.system.ask(scene.system.make_coupon(1), 1), "a user is answered")
        hands.bitten(links.api.felt["delayed"] > felt, "pieces were delayed")
        scene.recovers(since=time.monotonic())


@row(17, "Kafka's link to the API", "broken", seconds=25)
@pytest.mark.parametrize("bend", _BROKEN.values(), ids=_BROKEN)
def test_a_broken_link_of_the_api(scene: Scene, hands: Hands, links: Links, bend: Bend) -> None:
    """503 within the deadline, however silent the link is; then the same request is accepted."""
    coupon = scene.system.make_coupon(5)
    with scene.users():
        with bend(links.api):
            scene.turns_red("api")
            since = time.monotonic()
            answer = scene.system.ask(coupon, 1)
            scene.in_time(since, _ANSWERED_SECONDS, answer is not None and answer.status_code == 503, answer)
            hands.bitten(answer is not None and "retry-after" in answer.headers, "the user is told to come again")
        scene.recovers(since=time.monotonic())
        scene.demand(scene.system.final(scene.receipt(coupon, 1))["state"] == "issued", "the repeat is issued")


@row(18, "Kafka's link to the issuer", "latency 200±80 ms", seconds=20)
def test_a_slow_link_of_the_issuer(scene: Scene, hands: Hands, links: Links) -> None:
    """It issues, a little later."""
    coupon = scene.system.make_coupon(5)
    with scene.users():
        felt = links.issuer.felt["delayed"]
        with links.issuer.delaying(0.2, jitter=0.08):
            scene.demand(scene.system.final(scene.receipt(coupon, 1))["state"] == "issued", "it issues")
        hands.bitten(links.issuer.felt["delayed"] > felt, "pieces were delayed")
        scene.recovers(since=time.monotonic())


@row(18, "Kafka's link to the issuer", "broken for longer than its session", seconds=35)
@pytest.mark.parametrize("bend", _BROKEN.values(), ids=_BROKEN)
def test_a_broken_link_of_the_issuer(scene: Scene, hands: Hands, links: Links, bend: Bend) -> None:
    """It says so, neither skips nor ends, and goes on by itself where the database says."""
    coupon = scene.system.make_coupon(5)
    with scene.users():
        with bend(links.issuer):
            scene.turns_red("issuer")
            receipt = scene.receipt(coupon, 1)
            time.sleep(_SILENT_SECONDS)  # the silence's length is the fault
            hands.bitten(scene.system.standing(receipt)["state"] == "queued", "nothing is decided meanwhile")
            scene.turns_red("issuer")  # it is, still: without partitions it has not forgotten that it lost them
        scene.recovers(since=time.monotonic())
    scene.demand(scene.system.final(receipt)["state"] == "issued", "what waited is issued")


@row(22, "PostgreSQL's link to the issuer", f"the answer to COMMIT is lost ×{_CUTS}", seconds=25)
def test_the_answer_to_commit_is_lost(scene: Scene, hands: Hands, links: Links) -> None:
    """The poll is committed and the issuer cannot know: it reads where it stands and decides nothing twice."""
    with scene.users(per_second=120, at_once=32):
        for _ in range(_CUTS):
            cut_answer_to_commit(scene, links.database)
        scene.system.eventually(lambda: scene.log("issuer").count("issuing is paused") >= _CUTS)
        hands.bitten(scene.log("issuer").count("issuing is paused") >= _CUTS, "the issuer did not hear")
        scene.recovers(since=time.monotonic())


@row(22, "PostgreSQL's link to the issuer", "broken", seconds=30)
@pytest.mark.parametrize("bend", _BROKEN.values(), ids=_BROKEN)
def test_a_broken_link_to_the_database(scene: Scene, hands: Hands, links: Links, bend: Bend) -> None:
    """A link that says nothing is given up like one that is cut; no attempt is spent."""
    coupon = scene.system.make_coupon(5)
    with scene.users():
        with bend(links.database):
            scene.turns_red("issuer")
            receipt = scene.receipt(coupon, 1)
            hands.bitten(scene.system.standing(receipt)["state"] == "queued", "nothing is decided meanwhile")
        scene.recovers(since=time.monotonic())
    page = scene.system.final(receipt)
    scene.ledger.check(Invariant.AS_PROMISED, (page["state"], page["attempts"]) == ("issued", 1), page)


def cut_answer_to_commit(scene: Scene, proxy: Proxy) -> None:
    """Loses the answer to the next COMMIT of a poll."""
    before = proxy.felt["answers cut"]
    proxy.cut_answer(to=b"COMMIT", after=_ISSUING)
    scene.system.eventually(lambda: proxy.felt["answers cut"] > before)
