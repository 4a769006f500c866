"""Crash points: lines at which a test can kill or freeze this process; off unless CRASH_POINTS is set."""

import signal
import threading
from enum import StrEnum
from pathlib import Path

from service.config import Settings


class CrashPoint(StrEnum):
    """Every crash point; each lies between an effect and its publication."""

    API_ADMITTED = "api.admitted"
    API_PRODUCED = "api.produced"
    API_ACKNOWLEDGED = "api.acknowledged"
    ISSUER_LOCKED = "issuer.locked"
    #: in a plain batch: all is decided, and the message that writes and commits it is not sent yet
    ISSUER_WRITTEN = "issuer.written"
    ISSUER_COMMITTED = "issuer.committed"
    ISSUER_PUBLISHED = "issuer.published"
    RETRY_TAKEN = "retry.taken"
    RETRY_WRITTEN = "retry.written"
    RETRY_COMMITTED = "retry.committed"
    STANDBY_WRITTEN = "standby.written"
    STANDBY_COMMITTED = "standby.committed"
    DEAD_LETTERS_CLAIMED = "dead_letters.claimed"
    DEAD_LETTERS_ACKNOWLEDGED = "dead_letters.acknowledged"
    DEAD_LETTERS_STORED = "dead_letters.stored"
    DEAD_LETTERS_CONFIRMED = "dead_letters.confirmed"
    NOTICES_CLAIMED = "notices.claimed"
    NOTICES_POSTED = "notices.posted"
    GATE_FILLING = "gate.filling"
    GATE_FILLED = "gate.filled"
    CHANGE_WRITTEN = "change.written"
    CHANGE_COMMITTED = "change.committed"
    CHANGE_STANDBY_DECIDED = "change.standby_decided"
    CHANGE_PUBLISHED = "change.published"
    REPLAY_WRITTEN = "replay.written"
    REPLAY_COMMITTED = "replay.committed"
    DISCARD_WRITTEN = "discard.written"
    DISCARD_COMMITTED = "discard.committed"
    GATE_CLAIMED = "gate.claimed"
    GATE_SYNCED = "gate.synced"
    SEATS_EXPIRED = "seats.expired"
    SEATS_RELEASED = "seats.released"
    LOG_ADOPTED = "log.adopted"


_SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


class Armed:
    """The folder in which a file `<point>.kill` or `<point>.stop` arms that point once; None disables every point."""

    folder: Path | None = None


def configure(settings: Settings) -> None:
    """Set the folder in which this process looks for armed points."""
    Armed.folder = Path(settings.crash_points) if settings.crash_points else None


def reach(point: CrashPoint) -> None:
    """Disarm the point if it is armed, then kill or freeze the process here."""
    if Armed.folder is None:
        return
    for name, number in _SIGNALS.items():
        try:
            (Armed.folder / f"{point}.{name}").unlink()
        except FileNotFoundError:
            continue
        # A signal to the process may stop another thread first, and this thread would run on for a moment.
        signal.pthread_kill(threading.get_ident(), number)
