"""Publishes the issuer's health in Redis, where the API reads why nothing is decided."""

from collections.abc import Callable

from service.background_thread import BackgroundThread
from service.config import Settings
from service.domain.failures import classify
from service.gate.client import build_client
from service.gate.issuer_health import IssuerHealth, IssuerHealthBoard
from service.log import get_logger
from service.log_events import LogEvent
from service.metrics import WRITE_SECONDS
from service.stream.clients import issuer_client_id
from service.usecases.system_values import BrokerState
from workers.issuer.health import Health

_log = get_logger(__name__)
_INTERVAL_SECONDS = 2.0


class HealthPublisher(BackgroundThread):
    """A thread of its own: it goes on while the issuer waits for a part, and ends with the process only.

    What Redis does not take is lost. An issuer that ends in order withdraws its health, so that it is missed at once.
    """

    def __init__(self, settings: Settings, health: Health, read_broker: Callable[[], BrokerState]) -> None:
        """`read_broker` returns the state of Celery's broker; it may block for a second."""
        super().__init__("health publisher")
        self._redis = build_client(settings.redis_url)
        self._board = IssuerHealthBoard(self._redis)
        self._issuer = issuer_client_id(settings)
        self._health = health
        self._read_broker = read_broker

    def run(self) -> None:
        """Publish until the thread is closed, then withdraw."""
        self._attempt(self._board.withdraw_forgotten)
        while True:
            self._attempt(self._publish)
            if self._stopping.wait(_INTERVAL_SECONDS):
                break
        self._attempt(lambda: self._board.withdraw(self._issuer))
        self._redis.close()

    def _publish(self) -> None:
        broker = self._read_broker()
        seconds, writes = _writes()
        health = self._health
        state = IssuerHealth(health.iteration_age_seconds, health.reasons, seconds, writes, *broker, health.alerts)
        self._board.publish(self._issuer, state)

    def _attempt(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:  # noqa: BLE001  # the next attempt may succeed
            _log.debug(LogEvent.HEALTH_NOT_PUBLISHED, reason=str(classify(error)))


def _writes() -> tuple[float, float]:
    """Return the sum and the number of the writes of batches."""
    (family,) = WRITE_SECONDS.collect()
    values = {sample.name.rpartition("_")[2]: sample.value for sample in family.samples}
    return values["sum"], values["count"]
