"""What stops the demo: Ctrl-C, a kill, the terminal's end; each stops everything, once and in order."""

import signal

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def stop_as_ctrl_c() -> None:
    """Makes each signal a KeyboardInterrupt, which asyncio knows to raise between two steps, not within one."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in STOPPING[1:]:
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup is meant
            signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))


def ignore() -> None:
    """Lets nothing interrupt the stopping."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
