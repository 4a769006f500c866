"""Delivers messages to Celery once they are checked; drops those that nothing can read. Shared by the transports.

A dropped message is logged and loses no work: the work is in rows of PostgreSQL, and the sweep sends another message.
"""

from contextlib import suppress
from typing import Any

from service.log import get_logger
from service.log_events import LogEvent
from workers.message_check import InvalidMessage, check_message, check_task_message
from workers.queues import is_task_queue

_log = get_logger(__name__)
_MAX_LOGGED_LENGTH = 200


def log_dropped(queue: str | None, reason: object, message: object = None) -> None:
    """Log a message that is dropped, with its beginning."""
    _log.error(LogEvent.MESSAGE_DROPPED, queue=queue, reason=str(reason), message=str(message)[:_MAX_LOGGED_LENGTH])


class CheckedDelivery:
    """A part of a kombu transport: checks each message before its receiver, and outlives the receiver's errors."""

    channels: Any
    connection_errors: Any
    channel_errors: Any

    def _deliver(self, message: Any, queue: str) -> None:
        """Call the queue's receiver with a message that has the form on which it relies."""
        try:
            (check_task_message if is_task_queue(queue) else check_message)(message)
        except InvalidMessage as error:
            log_dropped(queue, error, message)
            return
        try:
            super()._deliver(message, queue)  # type: ignore[misc]
        except (*self.connection_errors, *self.channel_errors):
            raise
        except Exception as error:  # noqa: BLE001  # one message must not end the worker
            log_dropped(queue, repr(error), message)
            for channel in self.channels:  # the receiver left it unacknowledged: free its place
                with suppress(KeyError):
                    channel.qos.get(message["properties"]["delivery_tag"])
                    channel.basic_reject(message["properties"]["delivery_tag"], requeue=False)
