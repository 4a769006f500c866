"""A running stack in the hand: where its parts are, and what can be done to each by its name."""

from stack.errors import StackError
from stack.part import Part
from stack.supervisor import Supervisor

BACK_WITHIN_SECONDS = 60.0


class Handle:
    """The addresses of the parts and the acts on them; a name that the stack does not run raises StackError."""

    def __init__(self) -> None:
        self.environment: dict[str, str] = {}
        self._supervisor: Supervisor | None = None

    @property
    def kafka_bootstrap_servers(self) -> str:
        """Where Kafka is, host:port, for each broker."""
        return self.environment["KAFKA_BOOTSTRAP_SERVERS"]

    @property
    def database_url(self) -> str:
        """Where PostgreSQL is."""
        return self.environment["DATABASE_URL"]

    @property
    def redis_url(self) -> str:
        """Where the gate's Valkey is."""
        return self.environment["REDIS_URL"]

    @property
    def celery_broker_url(self) -> str:
        """Where Celery's broker is."""
        return self.environment["CELERY_BROKER_URL"]

    @property
    def api_url(self) -> str:
        """Where the API is, without a slash at the end."""
        return self.environment["API_URL"]

    @property
    def issuer_url(self) -> str:
        """Where the issuer answers for itself, without a slash at the end."""
        return self.environment["ISSUER_URL"]

    @property
    def flower_url(self) -> str:
        """Where Flower is, without a slash at the end."""
        return self.environment["FLOWER_URL"]

    def start(self, name: str) -> None:
        """Starts a part that was stopped, and waits for its health; raises CannotStart."""
        self._running.keeper(name).start()

    def stop(self, name: str) -> None:
        """Stops a part as a shutdown does; it stays away until it is started."""
        self._running.keeper(name).stop()

    def restart(self, name: str) -> None:
        """Stops a part, starts it and waits for its health; raises CannotStart."""
        self.stop(name)
        self.start(name)

    def kill(self, name: str) -> None:
        """Kills a part and all it started with SIGKILL; the supervisor starts it again after half a second."""
        self._running.keeper(name).kill()

    def crash(self, name: str) -> None:
        """Kills a part and all it started with SIGKILL; it stays away until it is started."""
        self._running.keeper(name).crash()

    def freeze(self, name: str) -> None:
        """Stops a part and all it started from running (SIGSTOP); raises StackError while it does not run."""
        self._running.keeper(name).freeze()

    def thaw(self, name: str) -> None:
        """Lets a frozen part run on (SIGCONT); raises StackError while it does not run."""
        self._running.keeper(name).thaw()

    def wait_up(self, name: str, timeout_seconds: float = BACK_WITHIN_SECONDS) -> None:
        """Waits until a killed part is healthy again; raises StackError after the timeout."""
        self._running.keeper(name).wait_up(timeout_seconds)

    def pid(self, name: str) -> int:
        """A part's process id, which is its process group's too; raises StackError while it does not run."""
        return self._running.keeper(name).pid

    def add(self, part: Part) -> None:
        """Starts one more part, stopped before all others; raises CannotStart."""
        self._running.start([part])

    @property
    def _running(self) -> Supervisor:
        if self._supervisor is None:
            raise StackError("the stack is not up")
        return self._supervisor
