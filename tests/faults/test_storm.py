"""A random storm over the whole, and every promise kept after it."""

import time
from collections.abc import Callable

import pytest

from tests.faults.hands import Hands
from tests.faults.rows import row
from tests.faults.scene import Scene
from tests.faults.storm import Storm

_SUFFERING_SECONDS, _QUIET_SECONDS = (3.0, 8.0), (1.0, 3.0)
#: of many thousand users; each one is a split of its poll
_FAILING = 0.004
#: what piled up meanwhile, notices above all
_SETTLED_SECONDS = 240.0


@row(41, "everything", "a random storm", seconds=300, within=3600)
def test_storm(
    scene: Scene, hands: Hands, request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
) -> None:
    """Faults by chance, some at once, with quiet between: accepted = issued + refused + dead, exactly."""
    storm = Storm(scene, hands)
    scene.settled_within_seconds = _SETTLED_SECONDS
    ends = time.monotonic() + 60 * request.config.getoption("--storm-minutes")
    wanted = request.config.getoption("--storm-accepted")
    with scene.users(per_second=600, at_once=64, failing=_FAILING) as crowd:
        while time.monotonic() < ends or crowd.accepted < wanted:
            with storm.period():
                time.sleep(scene.random.uniform(*_SUFFERING_SECONDS))  # how long it suffers is the fault
            time.sleep(scene.random.uniform(*_QUIET_SECONDS))
    request.node.add_report_section("call", "storm", "\n".join([*storm.happened, "left out:", *storm.left_out]))
    hands.bitten(storm.happened, "faults happened")
    record_property("note", f"{crowd.accepted:,} accepted under {len(storm.happened)} faults")
