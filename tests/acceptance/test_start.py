"""A process reports why it cannot start, and waits for servers that are not available yet."""

import re
import resource
import shlex
import socket
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pytest

from service.log_events import LogEvent
from stack.local import LocalStack
from stack.process_spec import http_ok
from tests.waiting import eventually

_ROOT = Path(__file__).resolve().parents[2]
_PROCESSES = {
    "api": ["-m", "service.api"],
    "issuer": ["-m", "workers.issuer"],
    "worker": ["-m", "celery", "-A", "workers", "worker"],
    "migrate": ["-m", "service.cli", "migrate"],
}


@pytest.mark.parametrize("process", _PROCESSES)
def test_every_invalid_setting_is_reported_at_once(parts: LocalStack, process: str) -> None:
    """With invalid settings each process exits with status 2 and a list of them, no stack trace."""
    completed = run(parts, process, DATABASE_URL="mysql://x", REDIS_URL="", TOPIC_PARTITIONS="none")

    assert completed.returncode == 2
    assert "Traceback" not in completed.stderr
    for name in ("DATABASE_URL", "REDIS_URL", "TOPIC_PARTITIONS"):
        assert name in completed.stderr


@pytest.mark.parametrize("process", _PROCESSES)
def test_an_option_that_is_not_supported_ends_the_start(parts: LocalStack, process: str) -> None:
    """A process does not wait for ever for a server that never answers; a password is not taken for a host."""
    url = "postgresql://us3r:p@55w0rd@127.0.0.1:9/x"
    completed = run(parts, process, DATABASE_URL=url, REDIS_URL=f"{parts.redis_url}?bogus=1")

    assert completed.returncode == 2
    assert "DATABASE_URL: the characters" in completed.stderr
    assert "REDIS_URL: has options that are not supported (1); supported are: client_name, " in completed.stderr
    assert not re.search("us3r|55w0rd|bogus", completed.stderr)


def test_a_topic_with_another_partition_count_is_reported(parts: LocalStack) -> None:
    """If the topic's partition count differs from the setting, the start fails with a message that has both."""
    completed = run(parts, "migrate", TOPIC_PARTITIONS="7")

    assert completed.returncode == 2
    assert "partitions (TOPIC_PARTITIONS) is 6, must be 7" in completed.stderr


def test_a_port_in_use_is_reported(parts: LocalStack) -> None:
    """An issuer whose port is taken exits with a message that names the setting."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        completed = run(parts, "issuer", ISSUER_PORT=str(taken.getsockname()[1]))

    assert completed.returncode == 2
    assert "ISSUER_PORT" in completed.stderr


@pytest.mark.parametrize("host", ["[::1]", "no-such-host.invalid", "192.0.2.1"])
def test_an_address_of_another_machine_is_reported(parts: LocalStack, host: str) -> None:
    """It is not the port that is wrong."""
    completed = run(parts, "issuer", ISSUER_HOST=host, ISSUER_PORT=free_port(), AUTH="on", JWT_ISSUER="")

    assert completed.returncode == 2
    assert f"ISSUER_HOST: {host} is no address of this machine" in completed.stderr
    assert "ISSUER_PORT" not in completed.stderr


@pytest.mark.parametrize("process", ["api", "issuer"])
@pytest.mark.parametrize(
    ("variable", "value", "server"),
    [
        ("DATABASE_URL", "postgresql://x@127.0.0.1:9/x", "PostgreSQL"),
        ("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9", "Kafka"),
    ],
)
def test_a_process_waits_for_an_unavailable_server(
    parts: LocalStack, tmp_path: Path, process: str, variable: str, value: str, server: str
) -> None:
    """A process that starts before its servers logs what it waits for, and exits on SIGTERM."""
    log = tmp_path / "log"
    with log.open("wb") as out:
        waiting = subprocess.Popen(
            [sys.executable, *_PROCESSES[process]],
            env={**parts.environment, variable: value, "API_PORT": free_port(), "ISSUER_PORT": free_port()},
            cwd=_ROOT,
            stderr=out,
        )
    try:
        waiting_for = re.compile(rf"{re.escape(LogEvent.START_WAITING)} .*{server} is unavailable")
        eventually(lambda: waiting_for.search(log.read_text()), within_seconds=60)
        assert waiting.poll() is None
    finally:
        waiting.terminate()
        waiting.wait(20)


@pytest.mark.parametrize("process", ["api", "issuer"])
def test_a_server_may_open_as_many_files_as_the_hard_limit_allows(parts: LocalStack, process: str) -> None:
    """Each connection is a file. With a soft limit of 256, clients beyond the 200th or so would get no answer."""
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    command = f"ulimit -Sn 256; exec {shlex.join([sys.executable, *_PROCESSES[process]])}"
    environment = {**parts.environment, "API_PORT": free_port(), "ISSUER_PORT": free_port()}
    with psutil.Popen(["/bin/sh", "-c", command], env=environment, cwd=_ROOT, stderr=subprocess.DEVNULL) as started:
        try:
            eventually(lambda: started.rlimit(psutil.RLIMIT_NOFILE) == (hard_limit, hard_limit))
        finally:
            started.terminate()


@pytest.mark.parametrize("process", ["api", "issuer"])
def test_a_client_beyond_the_limit_of_files_gets_an_answer(parts: LocalStack, tmp_path: Path, process: str) -> None:
    """At the start the log says how many connections there may be, and later how many were refused."""
    environment = {**parts.environment, "API_PORT": free_port(), "ISSUER_PORT": free_port(), "LOG_LEVEL": "info"}
    port = int(environment[f"{process.upper()}_PORT"])
    command = f"ulimit -n 256; exec {shlex.join([sys.executable, *_PROCESSES[process]])}"
    log = tmp_path / "log"
    with log.open("wb") as out, ExitStack() as opened:
        started = subprocess.Popen(["/bin/sh", "-c", command], env=environment, cwd=_ROOT, stderr=out)
        opened.callback(started.wait, 30)
        opened.callback(started.terminate)
        eventually(lambda: http_ok("127.0.0.1", port, "/healthz"), within_seconds=60)

        clients = [opened.enter_context(socket.create_connection(("127.0.0.1", port), 30)) for _ in range(300)]
        for client in clients:
            with suppress(OSError):  # it was refused before it had sent its request
                client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        statuses = Counter(client.recv(4096)[9:12] for client in clients)
        eventually(lambda: LogEvent.REQUESTS_REJECTED in log.read_text())

    assert statuses.keys() == {b"200", b"503"}
    assert statuses[b"503"] > 100
    assert re.search(rf"{re.escape(LogEvent.CONNECTIONS_ALLOWED)}.*connections=128.*open_files=256", log.read_text())


def test_flower_starts_where_kubernetes_has_set_the_address_of_its_service(parts: LocalStack) -> None:
    """It reads FLOWER_PORT itself, before its configuration, and takes no number that is none."""
    port = free_port()
    environment = {**parts.environment, "FLOWER_PORT": "tcp://10.0.0.1:5555"}
    command = [sys.executable, "-m", "celery", "-A", "workers", "flower", f"--port={port}"]
    with subprocess.Popen(command, env=environment, cwd=_ROOT, stderr=subprocess.DEVNULL) as started:
        try:
            eventually(lambda: http_ok("127.0.0.1", int(port), "/healthcheck"), within_seconds=60)
        finally:
            started.terminate()


def run(parts: LocalStack, process: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    """Run a process that is expected to exit by itself."""
    return subprocess.run(
        [sys.executable, *_PROCESSES[process]],
        env={**parts.environment, **settings},
        cwd=_ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def free_port() -> str:
    """Return a port that is free at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return str(taken.getsockname()[1])
