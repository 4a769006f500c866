"""A thread beside the main work of a process: started once, and closed after the step in progress."""

import threading


class BackgroundThread:
    """A daemon thread that runs `run`, which returns soon after `_stopping` is set.

    A subclass waits with `self._stopping.wait(seconds)` between its steps. As a daemon it does not hold up the end of
    a process that was not closed in order.
    """

    def __init__(self, name: str) -> None:
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self.run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Stop after the step in progress; return when the thread has ended."""
        self._stopping.set()
        self._thread.join()

    def run(self) -> None:
        """Work until `_stopping` is set."""
        raise NotImplementedError
