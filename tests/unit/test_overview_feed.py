"""The feed of the dashboard: one read for all who watch, and none for nobody."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, cast

import pytest

from service.domain.errors import TooManyStreams
from service.limits import MAX_DASHBOARD_STREAMS
from service.usecases import overview_feed
from service.usecases.overview import Overview, OverviewReader
from service.usecases.overview_feed import OverviewFeed, Snapshot


class _Reader:
    """Counts the reads; the first ones may fail."""

    def __init__(self) -> None:
        self.reads = 0
        self.failures = 0

    async def read(self) -> Overview:
        """Return something that stands for an overview."""
        self.reads += 1
        if self.reads <= self.failures:
            raise RuntimeError("it cannot be read")
        return cast(Overview, self.reads)


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> _Reader:
    """A reader, whose feed is quick."""
    monkeypatch.setattr(overview_feed, "_TICK_SECONDS", 0.001)
    return _Reader()


def _run(reader: _Reader, watch: Callable[[OverviewFeed], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        feed = OverviewFeed(cast(OverviewReader, reader))
        await asyncio.wait_for(watch(feed), 5)
        await feed.stop()

    asyncio.run(run())


def test_all_viewers_get_the_same_snapshot_which_is_rendered_once(reader: _Reader) -> None:
    rendered: list[Overview] = []

    def render(overview: Overview) -> bytes:
        rendered.append(overview)
        return b"an overview"

    async def watch(feed: OverviewFeed) -> None:
        with feed.watch() as first, feed.watch() as second:
            snapshots = await asyncio.gather(first.next(), second.next())
            assert snapshots[0] is snapshots[1] is not None
            assert {cast(Snapshot, one).rendered(render) for one in snapshots} == {b"an overview"}

    _run(reader, watch)
    assert len(rendered) == 1


def test_nothing_is_read_while_nobody_watches(reader: _Reader) -> None:
    """And again when somebody comes back."""

    async def watch(feed: OverviewFeed) -> None:
        for _ in range(2):
            before = reader.reads
            with feed.watch() as viewer:
                await viewer.next()
            assert reader.reads > before
            assert feed._ticking is not None
            await feed._ticking  # ends by itself

    _run(reader, watch)


def test_a_slow_viewer_gets_the_latest_snapshot_only(reader: _Reader) -> None:
    """It costs no memory, and delays nobody."""

    async def watch(feed: OverviewFeed) -> None:
        with feed.watch() as slow, feed.watch() as quick:
            for _ in range(5):
                await quick.next()
            assert cast(Snapshot, await slow.next())._overview == cast(Overview, reader.reads)

    _run(reader, watch)


def test_a_read_that_fails_is_tried_again(reader: _Reader) -> None:
    async def watch(feed: OverviewFeed) -> None:
        reader.failures = 2
        with feed.watch() as viewer:
            assert cast(Snapshot, await viewer.next())._overview == cast(Overview, 3)

    _run(reader, watch)


def test_a_closed_feed_ends_every_stream_at_once(reader: _Reader) -> None:
    """Those that are open, and those that are opened later."""

    async def watch(feed: OverviewFeed) -> None:
        with feed.watch() as viewer:
            await viewer.next()
            feed.close()
            assert await viewer.next() is None
        with feed.watch() as late:
            assert await late.next() is None

    _run(reader, watch)


def test_a_process_has_a_limited_number_of_viewers(reader: _Reader) -> None:
    """Whoever leaves gives the place back."""

    async def watch(feed: OverviewFeed) -> None:
        opened = [feed.watch() for _ in range(MAX_DASHBOARD_STREAMS)]
        for one in opened:
            one.__enter__()
        with pytest.raises(TooManyStreams), feed.watch():
            pass
        opened[0].__exit__(None, None, None)
        with feed.watch() as viewer:
            assert await viewer.next() is not None
        for one in opened[1:]:
            one.__exit__(None, None, None)

    _run(reader, watch)
