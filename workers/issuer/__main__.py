"""Runs the issuer: `python -m workers.issuer`."""

import gc
import signal
import sys
from contextlib import ExitStack
from functools import partial

from service import resources, startup
from service.domain.errors import Misconfigured
from service.stream import clients
from service.usecases.issue import Issuer
from workers.issuer import health
from workers.issuer.after_commit import AfterCommit, build_celery_client
from workers.issuer.dead_letter_listener import DeadLetterListener
from workers.issuer.loop import IssueLoop
from workers.issuer.monitor import Monitor

_TELL_SECONDS = 5.0
#: one thread decides while another reads: an answer of the database is not to wait for long behind the reading
_SWITCH_SECONDS = 0.0005


def main() -> None:
    """Checks the settings, waits for the parts, then issues until told to stop; closes in mirror order."""
    with startup.exit_on_error(), ExitStack() as opened:
        settings = startup.configure_process()
        state = health.Health()
        try:
            server = health.serve(state, settings.issuer_host, settings.issuer_port)
        except OSError as error:
            raise Misconfigured([f"ISSUER_PORT: {settings.issuer_port} cannot be used: {error}"]) from error
        opened.callback(server.shutdown)
        common = resources.wait_for_resources(settings, "issuer", connections=5)
        opened.callback(common.close)
        celery = build_celery_client()
        teller = AfterCommit(celery, common)
        opened.callback(teller.close, _TELL_SECONDS)
        watch = Monitor(common, celery, state)
        opened.callback(watch.close)
        listener = DeadLetterListener(common, partial(clients.build_dead_letter_consumer, settings), state)
        opened.callback(listener.close)
        issuer = Issuer(common.engine, common.log_id, notices=bool(settings.webhook_url))
        loop = IssueLoop(common, partial(clients.build_issuer_consumer, settings), issuer, teller, state)
        opened.callback(loop.close)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: loop.stop())
        listener.start()
        watch.start()
        _spare_the_collector()
        sys.setswitchinterval(_SWITCH_SECONDS)
        loop.run()


def _spare_the_collector() -> None:
    """A poll makes thousands of small values that die with it, without cycles: looking for cycles costs a quarter."""
    gc.freeze()
    gc.set_threshold(200_000, 10, 10)


if __name__ == "__main__":
    main()
