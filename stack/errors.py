"""Errors of the local stack. Each message says what failed and what the user can do."""


class StackError(Exception):
    """The local stack cannot do what the caller asked for.

    The base class of all errors below. `python -m stack` prints the message and exits with status 1.
    """


class CannotStart(StackError):
    """A process exited too early, or was not healthy in time.

    The message names the process and ends with the last lines of its log.
    """


class PortTaken(StackError):
    """A port that the user set by a variable is in use by another process."""


class AlreadyRunning(StackError):
    """Another supervisor runs a stack in the same directory; the message names its pid and URLs."""


class Aborted(StackError):
    """The stack was stopped while a process was still starting."""
