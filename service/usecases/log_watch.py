"""Notices that the topic is not the log of the database any more, or that its settings have changed."""

import threading
import time
from contextlib import suppress

from sqlalchemy import Engine

from service.background_thread import BackgroundThread
from service.config import Settings
from service.domain.errors import NotPermitted, Unavailable
from service.log import get_logger
from service.log_events import LogEvent
from service.store import logs
from service.store.engine import in_transaction
from service.store.logs import Log
from service.stream import topics
from service.stream.topics import Topic, TopicDescription

_log = get_logger(__name__)
_INTERVAL_SECONDS = 0.5
_TIMEOUT_SECONDS = 2.0
#: how often the settings of the topic are compared
_SETTINGS_INTERVAL_SECONDS = 10.0


class LogWatch(BackgroundThread):
    """Compares the broker's topic with the open log of the database, twice a second.

    A topic that was deleted and created again has another id. Its offsets mean other records, so until an operator
    adopts it nothing is accepted and nothing is decided. The Kafka client does not report the change: its fetches go on
    in the new topic at the old offset.
    """

    def __init__(self, settings: Settings, engine: Engine, log: Log) -> None:
        """`log` is the open log when the process starts."""
        super().__init__("log watch")
        self._settings = settings
        self._engine = engine
        self._admin = topics.build_admin(settings)
        #: the open log, as of the last comparison
        self.log = log
        #: why the log must be neither written nor decided; None while the topic is the open log
        self.fault: str | None = None
        #: the fault, for the alert about it; None also while Kafka does not answer, which is an alert of its own
        self.seen_fault: str | None = None
        #: why an operator should act although the system goes on
        self.alert: str | None = None
        self._comparing = threading.Lock()

    def require_open_log(self) -> None:
        """Raise Unavailable while the topic is not the open log."""
        if self.fault is not None:
            raise Unavailable("The log", self.fault)

    def compare(self) -> None:
        """Compare topic and log now. Raises Unavailable without Kafka; then the last result stays."""
        with self._comparing:
            try:
                topic = topics.find(self._admin, Topic.ISSUE_COUPON, _TIMEOUT_SECONDS)
            except Unavailable:
                self.seen_fault = None
                raise
            log = self.log
            if topic is None or topic.id != log.topic_id:
                with suppress(Unavailable), in_transaction(self._engine) as tx:  # another log may have been adopted
                    log = logs.get_open(tx)
            fault = why_not_open(log, topic, self._settings)
            if fault and fault != self.fault:
                _log.error(LogEvent.LOG_REPLACED, reason=fault)
            elif self.fault and not fault:
                _log.info(LogEvent.LOG_OPEN, log_id=log.id, topic_id=log.topic_id)
            self.log, self.fault, self.seen_fault = log, fault, fault

    def compare_settings(self) -> None:
        """Raise or clear the alert about the topic's settings; raise Unavailable without Kafka."""
        topic = topics.describe(self._admin, Topic.ISSUE_COUPON)
        deviations: list[str] = []
        with suppress(NotPermitted):  # logged at the start
            deviations = topics.other_settings(self._admin, Topic.ISSUE_COUPON, self._settings)
        self.alert = "; ".join([*deviations, *topics.too_many(Topic.ISSUE_COUPON, topic, self._settings)]) or None

    def run(self) -> None:
        """Work until the thread is closed."""
        next_settings_check = 0.0
        while not self._stopping.wait(_INTERVAL_SECONDS):
            try:
                self.compare()
                if time.monotonic() >= next_settings_check:
                    next_settings_check = time.monotonic() + _SETTINGS_INTERVAL_SECONDS
                    self.compare_settings()
            except Exception as error:  # noqa: BLE001  # readiness reports that Kafka is away
                _log.debug(LogEvent.LOG_NOT_COMPARED, reason=str(error))


def why_not_open(log: Log, topic: TopicDescription | None, settings: Settings) -> str | None:
    """Return why the topic cannot be used as this log, or None if it can."""
    if topic is None:
        return (
            f"topic {Topic.ISSUE_COUPON} does not exist, the open log is {log.topic_id}:"
            " run `coupons migrate`, then `coupons log adopt`"
        )
    if topic.id != log.topic_id:
        return (
            f"topic {Topic.ISSUE_COUPON} was created again: its id is {topic.id}, that of the open log is"
            f" {log.topic_id}: run `coupons log adopt`"
        )
    return "; ".join(topics.too_few(Topic.ISSUE_COUPON, topic, settings)) or None
