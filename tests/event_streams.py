"""Reads server-sent events as a browser does."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import httpx


class Event(NamedTuple):
    """An event; a comment is called `heartbeat`, and a change of the time to reconnect `retry`."""

    name: str
    id: str | None = None
    data: Any = None


@contextmanager
def stream(client: httpx.Client, request_id: str, **headers: str) -> Iterator[Iterator[Event]]:
    """Open the stream of a request, which is answered 200; yield its events."""
    path = f"/issuances/{request_id}/events"
    with client.stream("GET", path, headers=headers) as response:
        assert response.status_code == 200, response.read()
        yield read_events(response)


def read_events(response: httpx.Response) -> Iterator[Event]:
    """Yield the events until the stream ends; raise httpx.RemoteProtocolError if it does not end cleanly."""
    fields: dict[str, str] = {}
    for line in response.iter_lines():
        if line:
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
        else:
            yield _event(fields)
            fields = {}


def named(events: Iterator[Event], name: str) -> Event:
    """Return the next event with this name."""
    return next(event for event in events if event.name == name)


def _event(fields: dict[str, str]) -> Event:
    if "retry" in fields:
        return Event("retry", data=int(fields["retry"]))
    if "event" not in fields:
        return Event("heartbeat")
    return Event(fields["event"], fields.get("id"), json.loads(fields["data"]))
