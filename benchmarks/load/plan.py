"""What the generator is told and what it tells, as JSON files between the two processes."""

from msgspec import Struct

STATUS_ACCEPTED = 202


class Plan(Struct, frozen=True):
    """User `first_user + n` presses the button at `paths[n % len(paths)]`.

    With a rate the model is open: requests are due at that rate per second, whatever the answers. Without one it is
    closed: each connection sends its next request upon an answer, until all are sent or the seconds are over.
    """

    port: int
    paths: list[str]
    first_user: int
    requests: int
    connections: int = 64
    rate: float | None = None
    seconds: float | None = None


class Pressed(Struct, frozen=True):
    """What became of the requests, by their number; times are seconds since 1970."""

    began: float
    #: when each was due; in the closed model: when it was sent
    due: list[float]
    sent: list[float]
    answered: list[float]
    statuses: dict[int, int]
    #: of the generator itself, user and system
    cpu_seconds: float
    wall_seconds: float

    @property
    def cpu_share(self) -> float:
        """The part of one core that the generator took."""
        return self.cpu_seconds / self.wall_seconds

    @property
    def latencies(self) -> list[float]:
        """Seconds from when each request was due to its answer."""
        return [end - begin for begin, end in zip(self.due, self.answered, strict=True)]

    def rate_after(self, warm_seconds: float) -> float:
        """Answers per second, those of the first seconds left out."""
        begin, end = self.began + warm_seconds, max(self.answered)
        return sum(at > begin for at in self.answered) / (end - begin)
