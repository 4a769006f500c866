"""How a process says why it cannot start, and how it waits for parts that are not there yet."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from stack.local import LocalStack
from tests.waiting import eventually

_ROOT = Path(__file__).resolve().parents[2]
_PROCESSES = {
    "api": ["-m", "service.api"],
    "issuer": ["-m", "workers.issuer"],
    "worker": ["-m", "celery", "-A", "workers", "worker"],
    "migrate": ["-m", "service.cli", "migrate"],
}


@pytest.mark.parametrize("process", _PROCESSES)
def test_every_fault_of_the_settings_is_named_at_once(parts: LocalStack, process: str) -> None:
    """Without settings each process ends with status 2 and a list, no stack trace."""
    faulty = {**parts.environment, "DATABASE_URL": "mysql://x", "REDIS_URL": "", "TOPIC_PARTITIONS": "none"}

    ended = subprocess.run(
        [sys.executable, *_PROCESSES[process]],
        env=faulty,
        cwd=_ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    for name in ("DATABASE_URL", "REDIS_URL", "TOPIC_PARTITIONS"):
        assert name in ended.stderr


def test_another_topics_shape_is_said(parts: LocalStack) -> None:
    """A topic with another partition count than asked for ends the start, naming both."""
    ended = run(parts, "migrate", TOPIC_PARTITIONS="7")

    assert ended.returncode == 2
    assert "partitions (TOPIC_PARTITIONS) is 6, 7 is needed" in ended.stderr


def test_a_port_in_use_is_said(parts: LocalStack) -> None:
    """An issuer whose port is taken ends with the setting's name."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = run(parts, "issuer", ISSUER_PORT=str(taken.getsockname()[1]))

    assert ended.returncode == 2
    assert "ISSUER_PORT" in ended.stderr


@pytest.mark.parametrize("process", ["api", "issuer"])
@pytest.mark.parametrize(
    ("variable", "nowhere", "part"),
    [
        ("DATABASE_URL", "postgresql://x@127.0.0.1:9/x", "PostgreSQL"),
        ("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9", "Kafka"),
    ],
)
def test_a_part_that_is_absent_is_waited_for(
    parts: LocalStack, tmp_path: Path, process: str, variable: str, nowhere: str, part: str
) -> None:
    """A process that starts before its parts says what it waits for, and ends when told to."""
    log = tmp_path / "log"
    with log.open("wb") as out:
        waiting = subprocess.Popen(
            [sys.executable, *_PROCESSES[process]],
            env={**parts.environment, variable: nowhere, "API_PORT": free(), "ISSUER_PORT": free()},
            cwd=_ROOT,
            stderr=out,
        )
    try:
        eventually(lambda: f"waiting: {part} is unavailable" in log.read_text(), within_seconds=60)
        assert waiting.poll() is None
    finally:
        waiting.terminate()
        waiting.wait(20)


def run(parts: LocalStack, process: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    """A process that is expected to end by itself."""
    return subprocess.run(
        [sys.executable, *_PROCESSES[process]],
        env={**parts.environment, **settings},
        cwd=_ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def free() -> str:
    """A port that nobody uses at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return str(taken.getsockname()[1])
