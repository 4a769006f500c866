"""Celery over Redis: kombu's transport, which one malformed message would otherwise end.

Only who takes tasks returns those of killed workers to their queues: Flower needs no right to change one.
"""

from collections.abc import Callable
from functools import partial
from queue import Empty
from typing import Any

from kombu.transport import redis

from service.gate.sentinel import Sentinels
from workers.checked_delivery import CheckedDelivery, log_dropped
from workers.queues import Queue


class QoS(redis.QoS):
    """Kombu's record of messages that are delivered and not acknowledged."""

    def restore_visible(self, *arguments: Any, **options: Any) -> None:
        """Return the unacknowledged tasks of killed workers to their queues.

        Kombu calls this wherever a queue is read, and so does who only waits for a worker's answer, such as Flower.
        """
        if not set(Queue).isdisjoint(self.channel.active_queues):
            super().restore_visible(*arguments, **options)  # type: ignore[no-untyped-call]

    def restore_by_tag(self, tag: Any, client: Any = None, leftmost: bool = False) -> None:
        """Return a message to its queue; drop an entry that kombu did not write, which would stop all restoring."""
        try:
            super().restore_by_tag(tag, client, leftmost)  # type: ignore[no-untyped-call]
        except (*Transport.connection_errors, *Transport.channel_errors):
            raise
        except Exception as error:  # noqa: BLE001
            log_dropped(None, repr(error), tag)
            self._remove_from_indices(tag).execute()  # type: ignore[no-untyped-call]


class Channel(redis.Channel):
    """Kombu's channel, which also outlives what is not kombu's JSON. Redis has removed it from its queue already."""

    QoS = QoS

    def _brpop_read(self, **options: Any) -> Any:
        return _read_or_drop(partial(super()._brpop_read, **options))

    def _receive_one(self, c: Any) -> Any:
        """Take a message from the channels of commands and events; raise Empty if there is none.

        Kombu also calls this when nothing has arrived, for example after children of the worker were killed and Redis
        was restarted. Its read would then wait for the socket's timeout, and every task with it.
        """
        if not self._has_arrived(c.connection):
            raise Empty
        return _read_or_drop(partial(super()._receive_one, c))

    def _has_arrived(self, connection: Any) -> bool:
        try:
            return connection is not None and bool(connection.can_read(timeout=0))
        except self.connection_errors:
            self._in_listen = False  # as after a read that fails: the channels are subscribed again
            raise


def _read_or_drop(read: Callable[[], Any]) -> Any:
    """Return what kombu reads; log and drop a message that it cannot decode. Raises Empty and errors of Redis."""
    try:
        return read()
    except (Empty, *Transport.connection_errors, *Transport.channel_errors):
        raise
    except Exception as error:  # noqa: BLE001  # kombu's decoder raises whatever the values of its types raise
        log_dropped(None, repr(error), getattr(error, "doc", None))
        return None


class Transport(CheckedDelivery, redis.Transport):
    """Kombu's transport with checked messages."""

    Channel = Channel


class SentinelChannel(Channel, redis.SentinelChannel):
    """The same channel at the primary that Sentinel names."""

    def _sentinel_managed_pool(self, asynchronous: bool = False) -> Any:
        """Return kombu's pool, which finds the primary as the gate's does: a failure says why."""
        pool: Any = super()._sentinel_managed_pool(asynchronous)  # type: ignore[no-untyped-call]
        sentinels = Sentinels(())  # type: ignore[no-untyped-call]
        sentinels.sentinels = pool.sentinel_manager.sentinels  # kombu closes these
        pool.sentinel_manager = pool.proxy.sentinel_manager = sentinels
        return pool


class SentinelTransport(CheckedDelivery, redis.SentinelTransport):
    """Kombu's transport over Sentinel with checked messages."""

    Channel = SentinelChannel
