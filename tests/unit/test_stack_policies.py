"""The local stack's pure parts: when to start again, which port, what a log says, what the guard and a shell read."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from stack import guard, jars, logs, memory, ports, settings
from stack.errors import PortTaken, StackError
from stack.files import kept_secret, read_exports, write_exports
from stack.keeper import next_delay
from stack.local import LocalStack
from stack.plan import EVERYTHING


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which somebody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_a_part_that_keeps_dying_is_started_less_and_less_often() -> None:
    delays = [0.0]
    while len(delays) < 8:
        delays.append(next_delay(delays[-1], lived_seconds=1.0))
    assert delays[1:] == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


def test_a_part_that_lived_a_minute_is_started_at_once_again() -> None:
    assert next_delay(10.0, lived_seconds=60.0) == 0.5


def test_a_remembered_port_comes_before_a_preferred_one(tmp_path: Path) -> None:
    first = ports.assign(tmp_path / "ports.json", {"api": None})
    assert ports.assign(tmp_path / "ports.json", {"api": ports.any_free()}) == first


def test_a_remembered_port_that_is_taken_gives_way(tmp_path: Path) -> None:
    first = ports.assign(tmp_path / "ports.json", {"api": None})
    with socket.create_server(("127.0.0.1", first["api"])):
        assert ports.assign(tmp_path / "ports.json", {"api": None}) != first


def test_a_preferred_port_that_is_taken_gives_way(tmp_path: Path, taken: int) -> None:
    assert ports.assign(tmp_path / "ports.json", {"api": taken})["api"] != taken


def test_no_two_parts_get_the_same_port(tmp_path: Path) -> None:
    wish = ports.any_free()
    assert len(set(ports.assign(tmp_path / "ports.json", {"api": wish, "issuer": wish}).values())) == 2


def test_a_chosen_port_that_is_taken_is_named(taken: int) -> None:
    with pytest.raises(PortTaken, match=f"^API_PORT={taken} is in use: "):
        ports.chosen_by_user({"API_PORT": str(taken)}, {"API_PORT": "api"})


@pytest.mark.parametrize("text", ["0", "65536", "-1", "http", "８０"])
def test_a_chosen_port_that_is_none_is_named(text: str) -> None:
    with pytest.raises(StackError, match=f"^API_PORT={text} is not a port: "):
        ports.chosen_by_user({"API_PORT": text}, {"API_PORT": "api"})


def test_a_part_is_given_only_if_each_of_its_addresses_is() -> None:
    assert "valkey" in settings.to_start(EVERYTHING, {"REDIS_URL": "redis://elsewhere/0"})
    both = {"REDIS_URL": "redis://elsewhere/0", "CELERY_BROKER_URL": "redis://elsewhere/1"}
    assert "valkey" not in settings.to_start(EVERYTHING, both)
    assert "kafka" in settings.to_start(EVERYTHING, {"KAFKA_BOOTSTRAP_SERVERS": ""})


def test_three_brokers_are_three_parts_and_any_other_number_is_refused() -> None:
    assert settings.to_start(("kafka", "valkey"), {"KAFKA_BROKERS": "3"}) == ["kafka-1", "kafka-2", "kafka-3", "valkey"]
    assert settings.to_start(("kafka",), {"KAFKA_BROKERS": "3", "KAFKA_BOOTSTRAP_SERVERS": "elsewhere:9092"}) == []
    with pytest.raises(StackError, match=r"^KAFKA_BROKERS=2 cannot be had: set it to 1 or 3$"):
        settings.to_start(("kafka",), {"KAFKA_BROKERS": "2"})


def test_topics_are_replicated_on_three_brokers_unless_the_user_says_otherwise(tmp_path: Path) -> None:
    ports_of_three = {f"kafka-{number}{what}": number for number in (1, 2, 3) for what in ("", "_controller")}
    told = settings.environment(tmp_path, ports_of_three, {})
    assert (told["TOPIC_REPLICATION"], told["TOPIC_MIN_INSYNC_REPLICAS"]) == ("3", "2")
    assert told["KAFKA_BOOTSTRAP_SERVERS"] == "127.0.0.1:1,127.0.0.1:2,127.0.0.1:3"
    told = settings.environment(tmp_path, ports_of_three, {"TOPIC_REPLICATION": "1"})
    assert (told["TOPIC_REPLICATION"], told.get("TOPIC_MIN_INSYNC_REPLICAS")) == ("1", None)


def test_three_brokers_without_memory_for_them_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "THREE_BROKERS_MB", 10**9)
    assert not memory.lack(brokers=1)
    with pytest.raises(StackError, match=r"^3 Kafka brokers need 1000000000 MB of memory and \d+ MB are free: "):
        LocalStack(tmp_path, ("kafka",), settings.OWN | {"KAFKA_BROKERS": "3"}).up()


def test_a_proxy_to_three_brokers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StackError, match=r"^a Kafka proxy leads to one broker: "):
        LocalStack(tmp_path, ("kafka",), settings.OWN | {"KAFKA_BROKERS": "3"}, kafka_proxies={"issuer": 1}).up()


def test_celery_over_kafka_uses_the_kafka_of_the_log_and_no_flower(tmp_path: Path) -> None:
    given = {"CELERY_BROKER_URL": settings.OVER_KAFKA}
    told = settings.environment(tmp_path, {"kafka": 1, "kafka_controller": 2, "valkey": 3}, given)
    assert told["CELERY_BROKER_URL"] == "confluentkafka://127.0.0.1:1"
    theirs = settings.environment(tmp_path, {}, given | {"KAFKA_BOOTSTRAP_SERVERS": "one:9092,two:9092"})
    assert theirs["CELERY_BROKER_URL"] == "confluentkafka://one:9092"
    assert set(EVERYTHING) - set(settings.to_start(EVERYTHING, given)) == {"flower"}
    assert "flower" in settings.to_start(EVERYTHING, {"CELERY_BROKER_URL": "redis://elsewhere/1"})


def test_what_the_user_set_reaches_the_processes_except_an_address_beyond_loopback(tmp_path: Path) -> None:
    given = {"REQUEST_ID_KEYS": "mine", "DATABASE_URL": "postgresql://elsewhere/db", "API_HOST": "0.0.0.0"}
    told = settings.environment(tmp_path, {"kafka": 1, "kafka_controller": 2, "api": 3}, given)
    assert told["REQUEST_ID_KEYS"] == "mine"
    assert told["DATABASE_URL"] == "postgresql://elsewhere/db"
    assert told["KAFKA_BOOTSTRAP_SERVERS"] == "127.0.0.1:1"
    assert (told["API_HOST"], told["API_PORT"], told["API_URL"]) == ("127.0.0.1", "3", "http://127.0.0.1:3")


def test_a_secret_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    first = kept_secret(tmp_path / "key")
    assert len(bytes.fromhex(first)) == 32
    assert kept_secret(tmp_path / "key") == first
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600


def test_a_shell_reads_the_exports_as_they_were_written(tmp_path: Path) -> None:
    variables = {"PLAIN": "a", "HARD": 'it\'s $HOME = "b" export\n c'}
    write_exports(tmp_path / "env", variables)
    assert read_exports(tmp_path / "env") == variables
    command = ["/bin/sh", "-c", '. "$0"; printf "%s" "$HARD"', str(tmp_path / "env")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == variables["HARD"]


def test_an_error_quotes_the_last_start_only(tmp_path: Path) -> None:
    log = tmp_path / "part.log"
    log.write_bytes(logs.heading() + b"old\n" + logs.heading() + b"new\n")
    assert logs.tail(log) == f"the end of {log}:\n    new"


def test_the_guard_keeps_what_was_announced_and_not_taken_back() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        told = guard.announcement(2, signal.SIGTERM, 1.5)
        living = guard.read([f"+ {os.getpid()} {told}\n", f"+ {child.pid} {told}\n", f"- {os.getpid()}\n"])
        assert list(living) == [child.pid]
        stage, target = living[child.pid]
        assert (stage, target.stop_signal, target.timeout_seconds) == (2, signal.SIGTERM, 1.5)
        child.communicate(b"\n")


def test_a_jar_that_is_not_what_the_lock_says_is_fetched_once_more_and_then_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[str] = []

    def corrupt(_: str, artifact: str, __: str) -> Path:
        fetched.append(artifact)
        jar.path.parent.mkdir(parents=True, exist_ok=True)
        jar.path.write_bytes(b"not the jar")
        return jar.path

    monkeypatch.setenv("M2_REPO", str(tmp_path))
    monkeypatch.setattr(jars, "download", corrupt)
    jar = jars.Jar("org.example", "part", "1.0", "0" * 64)
    with pytest.raises(StackError, match=r"^org\.example:part:1\.0 cannot be fetched: its content"):
        jars.fetch([jar])
    assert fetched == ["part", "part"]
    assert not jar.path.exists()


def test_the_lock_file_pins_kafka_and_has_no_addresses() -> None:
    assert any(str(jar) == jars.BROKER for jar in jars.locked())
    assert "://" not in jars.LOCK.read_text()
    assert all(len(bytes.fromhex(jar.sha256)) == 32 for jar in jars.locked())


def test_a_process_that_ended_unseen_is_no_target() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    assert not psutil.pid_exists(ended.pid)
    assert guard.read([f"+ {ended.pid} {guard.announcement(0, signal.SIGTERM, 1)}\n"]) == {}
