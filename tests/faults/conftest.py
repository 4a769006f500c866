"""The stage of every row, by default the stack that all tests of running processes share."""

from collections.abc import Iterator
from random import Random

import pytest

from tests.faults import aftermath
from tests.faults.hands import Hands
from tests.faults.ledger import Ledger
from tests.faults.scene import Scene
from tests.faults.selection import ledger_of, seed_of
from tests.faults.watch import Watch
from tests.system import System


@pytest.fixture
def ledger(pytestconfig: pytest.Config) -> Ledger:
    """Counts every check of the run."""
    return ledger_of(pytestconfig)


@pytest.fixture
def random(request: pytest.FixtureRequest) -> Random:
    """The row's own chances: the same for a seed, whichever other rows run."""
    return Random(f"{seed_of(request.config)} {request.node.name}")


@pytest.fixture
def ground(_started: System) -> System:
    """What the rows of a module run on; a module that needs another layout has a ground of its own."""
    return _started


@pytest.fixture
def hands(ground: System, ledger: Ledger) -> Hands:
    """What breaks things."""
    return Hands(ground.stack, ledger)


@pytest.fixture
def scene(ground: System, ledger: Ledger, hands: Hands, random: Random) -> Iterator[Scene]:
    """The running system; whatever a row does to it, afterwards every promise is checked."""
    ground.begin()
    before = aftermath.running(ground)
    staged = Scene(ground, ledger, random)
    with Watch(ground.stack.database_url, ledger, staged.newest_coupon_before):
        yield staged
        hands.heal()
        aftermath.check(staged, hands, before)
