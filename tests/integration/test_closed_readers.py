"""A command whose reader has closed the pipe ends quietly, with its usual status: `coupons verify | true`."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack

from service.domain.coupon import Coupon
from service.startup import EXIT_STATUS
from tests.log import Log

#: what is printed, and the status with which it ends
_COMMANDS = {
    ("verify",): 0,
    ("verify", "--json"): 0,
    ("coupon", "list"): 0,
    ("coupon", "report", "999999999"): EXIT_STATUS,
    ("dead-letters", "list", "--json"): 0,
    ("log", "show"): 0,
    ("keys", "list"): 0,
    ("doctor",): 1,
}


def test_the_status_does_not_depend_on_a_reader(
    command_environment: Mapping[str, str], real_log: Log, make_coupon: Callable[..., Coupon]
) -> None:
    """Neither of the result nor of errors; nothing else is said to those who read the errors."""
    del real_log
    made = make_coupon()
    commands = {**_COMMANDS, ("coupon", "show", str(made.id)): 0, ("coupon", "export", str(made.id)): 0}
    with ExitStack() as opened:
        started = {}
        for command, status in commands.items():
            reader, writer = os.pipe()
            os.close(reader)
            argv = (sys.executable, "-m", "service.cli", *command)
            errors = writer if status == EXIT_STATUS else subprocess.PIPE
            started[command] = opened.enter_context(
                subprocess.Popen(argv, env=command_environment, stdout=writer, stderr=errors, text=True)
            )
            os.close(writer)
        errors_of = {command: process.communicate(timeout=60)[1] or "" for command, process in started.items()}
        statuses = {command: process.returncode for command, process in started.items()}

    assert statuses == commands, errors_of
    assert not any(word in text for word in ("Traceback", "Broken pipe") for text in errors_of.values()), errors_of
