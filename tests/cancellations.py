"""A cancellation that is requested before a chosen step."""

from service.cancellation import Cancellation


class CancelledAt(Cancellation):
    """Requests the end before a step."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.left = steps

    def check(self) -> None:
        """Count a step."""
        if self.left == 0:
            self.request()
        self.left -= 1
        super().check()
