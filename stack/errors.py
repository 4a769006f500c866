"""What can keep the local stack from starting; each message tells its reader what to do."""


class StackError(Exception):
    """The local stack cannot do what was asked."""


class CannotStart(StackError):
    """A part did not start: the message names it and ends with the last lines of its log."""


class PortTaken(StackError):
    """A port that the user chose is in use by someone else."""


class AlreadyRunning(StackError):
    """Another supervisor runs a stack in the same directory."""


class Aborted(StackError):
    """The stack was told to stop while a part was still starting."""
