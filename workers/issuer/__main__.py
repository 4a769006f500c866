"""Runs the issuer: `python -m workers.issuer`."""

import errno
import gc
import signal
import socket
import sys
from contextlib import ExitStack
from functools import partial

from service import resources, startup, tracing
from service.config import Settings
from service.domain.errors import Misconfigured
from service.scrape import open_system_values
from service.stream import clients
from service.usecases.issue import Issuer
from workers.issuer.after_commit import AfterCommit, build_celery_client
from workers.issuer.dead_letter_listener import DeadLetterListener
from workers.issuer.follow_up_relay import FollowUpRelay
from workers.issuer.health import JOINING, Health
from workers.issuer.health_publisher import HealthPublisher
from workers.issuer.health_server import HealthServer
from workers.issuer.loop import IssueLoop
from workers.issuer.monitor import Monitor
from workers.queues import Queue

_PUBLISH_TIMEOUT_SECONDS = 5.0
#: one thread decides while another reads: the deciding thread must not wait long for the interpreter after an answer
#: of the database
_SWITCH_SECONDS = 0.0005


def main() -> None:
    """Check the settings, then issue until a signal comes; begin again when another log is adopted."""
    with startup.exit_on_error(), ExitStack() as opened:
        settings = startup.configure_server()
        tracing.configure(settings, "issuer")
        opened.callback(tracing.close)
        health = Health()
        authenticator = opened.enter_context(resources.open_authenticator(settings, "issuer keys"))
        values = opened.enter_context(open_system_values(settings, "issuer metrics", [*Queue]))
        try:
            server = HealthServer(health, authenticator, values.read, settings.issuer_host, settings.issuer_port)
        except OSError as error:
            raise Misconfigured([_fault_of_address(settings, error)]) from error
        opened.callback(server.close)
        server.start()
        publisher = HealthPublisher(settings, health, values.read_broker)
        opened.callback(publisher.close)
        publisher.start()
        while issue_log(settings, health):
            pass


def _fault_of_address(settings: Settings, error: OSError) -> str:
    """Return which setting is the reason that the port could not be bound."""
    try:
        socket.getaddrinfo(settings.issuer_host, settings.issuer_port)
        is_host = error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
    except OSError:
        is_host = True
    if is_host:
        return f"ISSUER_HOST: {settings.issuer_host} is no address of this machine: {error}"
    return f"ISSUER_PORT: {settings.issuer_port} cannot be used: {error}"


def issue_log(settings: Settings, health: Health) -> bool:
    """Wait for PostgreSQL and Kafka and decide the open log; return whether another log was adopted meanwhile.

    Everything that is opened is closed in reverse order.
    """
    with ExitStack() as opened:
        shared = resources.wait_for_signing_resources(
            settings, "issuer", announce_keys=True, on_waiting=health.set_starting
        )
        opened.callback(shared.close)
        health.set_starting(JOINING)
        celery = build_celery_client()
        after_commit = AfterCommit(celery, shared)
        opened.callback(after_commit.close, _PUBLISH_TIMEOUT_SECONDS)
        monitor = Monitor(shared, celery, health)
        opened.callback(monitor.close)
        relay = FollowUpRelay(shared, celery)
        opened.callback(relay.close)
        listener = DeadLetterListener(shared, partial(clients.build_dead_letter_consumer, settings), health)
        opened.callback(listener.close)
        issuer = Issuer(
            shared.engine,
            shared.log_id,
            shared.key_register,
            notices=bool(settings.webhook_url),
            refuse_foreign=settings.foreign_records == "refuse",
            plain_batches=settings.prepares_statements and not settings.database_pooler,
        )
        loop = IssueLoop(shared, partial(clients.build_issuer_consumer, settings), issuer, after_commit, health)
        opened.callback(loop.close)
        opened.callback(shared.log_watch.close)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: loop.stop())
            opened.callback(signal.signal, number, signal.SIG_DFL)  # until the next log is open, a signal ends it
        for thread in (shared.log_watch, listener, monitor, relay):
            thread.start()
        # A batch makes thousands of small objects that are freed with it and form no cycles. Looking for cycles in them
        # costs a quarter of the time.
        gc.freeze()
        gc.set_threshold(200_000, 10, 10)
        sys.setswitchinterval(_SWITCH_SECONDS)
        return loop.run()


if __name__ == "__main__":
    main()
