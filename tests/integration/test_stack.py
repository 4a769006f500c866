"""The local stack on the real thing: it starts, keeps what it was told, comes back, and leaves nothing behind."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
import pytest
import redis
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from stack import jars, tree
from stack.errors import AlreadyRunning, CannotStart, PortTaken, StackError
from stack.files import read_exports
from stack.local import LocalStack
from stack.part import Part
from stack.plan import EVERYTHING, PARTS
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]
ADDRESSES = ("KAFKA_BOOTSTRAP_SERVERS", "DATABASE_URL", "REDIS_URL", "CELERY_BROKER_URL")
TOPIC = "KEPT"
WAIT_SECONDS = 60.0


@pytest.fixture(autouse=True, scope="module")
def _nothing_given() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in (*ADDRESSES, "API_PORT", "ISSUER_PORT", "FLOWER_PORT"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    with LocalStack(tmp_path_factory.mktemp("stack")) as running:
        yield running


def test_each_part_answers_at_the_address_it_is_given_under(stack: LocalStack) -> None:
    with psycopg.connect(stack.database_url) as connection:
        assert connection.info.dbname == "coupons"
    for url in (stack.redis_url, stack.celery_broker_url):
        with redis.Redis.from_url(url) as client:
            assert client.ping()
    assert AdminClient({"bootstrap.servers": stack.kafka_bootstrap_servers}).list_topics(timeout=5).brokers


def test_a_commit_reaches_the_disk(stack: LocalStack) -> None:
    with psycopg.connect(stack.database_url) as connection:
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            assert connection.execute("select current_setting(%s)", [setting]).fetchone() == ("on",)


def test_a_topic_that_nobody_made_does_not_come_to_be(stack: LocalStack) -> None:
    servers = {"bootstrap.servers": stack.kafka_bootstrap_servers}
    refused: list[KafkaError | None] = []
    producer = Producer({**servers, "message.timeout.ms": 2000})
    producer.produce("NOBODY_MADE_THIS", b"record", on_delivery=lambda error, _: refused.append(error))
    assert producer.flush(WAIT_SECONDS) == 0
    assert len(refused) == 1
    assert refused[0]
    assert "NOBODY_MADE_THIS" not in producer.list_topics(timeout=5).topics


def test_everything_listens_on_loopback_only(stack: LocalStack) -> None:
    hosts = {
        connection.laddr.ip
        for name in ("kafka", "postgres", "valkey")
        for connection in psutil.Process(stack.pid(name)).net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert {host.removeprefix("::ffff:") for host in hosts} == {"127.0.0.1"}


@pytest.mark.parametrize("name", ["kafka", "postgres", "valkey"])
def test_a_killed_part_comes_back_with_what_it_was_told(stack: LocalStack, name: str) -> None:
    killed = stack.pid(name)
    stack.kill(name)
    stack.wait_up(name)
    assert stack.pid(name) != killed
    assert f"{name:<9} is back" in (stack.directory / "log" / "stack.log").read_text()


def test_a_stopped_part_stays_away_until_it_is_started(stack: LocalStack) -> None:
    stack.stop("valkey")
    with pytest.raises(StackError, match="valkey is not running"):
        stack.pid("valkey")
    with redis.Redis.from_url(stack.redis_url) as client, pytest.raises(redis.ConnectionError):
        client.ping()
    stack.start("valkey")
    assert psutil.pid_exists(stack.pid("valkey"))


def test_a_crashed_part_stays_away_until_it_is_started(stack: LocalStack) -> None:
    with psycopg.connect(stack.database_url) as connection:
        connection.execute("create table survives as select 1")
    stack.crash("postgres")
    with pytest.raises(StackError, match="postgres is not running"):
        stack.pid("postgres")
    stack.start("postgres")
    assert "was not properly shut down" in (stack.directory / "log" / "postgres.log").read_text()
    with psycopg.connect(stack.database_url) as connection:
        assert connection.execute("select * from survives").fetchone() == (1,)


def test_a_frozen_part_answers_nobody_until_it_is_thawed(stack: LocalStack) -> None:
    with psycopg.connect(stack.database_url) as connection, ThreadPoolExecutor(1) as aside:
        stack.freeze("postgres")
        answer = aside.submit(lambda: connection.execute("select 1").fetchone())
        with pytest.raises(TimeoutError):
            answer.result(timeout=1)
        stack.thaw("postgres")
        assert answer.result(timeout=WAIT_SECONDS) == (1,)


@pytest.mark.parametrize("name", ["kafka", "postgres", "valkey"])
def test_a_frozen_part_does_not_hold_up_the_stop(stack: LocalStack, name: str) -> None:
    frozen = psutil.Process(stack.pid(name))
    with psycopg.connect(stack.database_url):  # a connection of PostgreSQL's is a process of its own, and freezes too
        stack.freeze(name)
        began = time.monotonic()
        stack.stop(name)
    assert tree.gone(frozen)
    assert time.monotonic() - began < 8
    stack.start(name)


def test_a_second_stack_in_the_same_directory_is_refused(stack: LocalStack) -> None:
    with pytest.raises(AlreadyRunning, match=f"already runs as process {os.getpid()}"):
        LocalStack(stack.directory).up()
    assert psutil.pid_exists(stack.pid("valkey"))


def test_a_given_database_is_used_and_not_started(stack: LocalStack, tmp_path: Path) -> None:
    given = {"DATABASE_URL": stack.database_url}
    with LocalStack(tmp_path, names=("postgres", "valkey"), variables=given) as other:
        assert other.database_url == stack.database_url
        assert not (tmp_path / "postgres").exists()
        with pytest.raises(StackError, match="does not run postgres"):
            other.pid("postgres")


def test_what_was_told_survives_a_restart_even_on_another_port(tmp_path: Path) -> None:
    with LocalStack(tmp_path) as stack:
        _tell(stack)
        environment = stack.environment
    taken = int(environment["KAFKA_BOOTSTRAP_SERVERS"].rpartition(":")[2])
    with _listening(taken), LocalStack(tmp_path) as stack:
        assert _told(stack) == ("row", b"value", b"record")
        assert stack.database_url == environment["DATABASE_URL"]
        assert stack.kafka_bootstrap_servers != environment["KAFKA_BOOTSTRAP_SERVERS"]
        assert stack.environment["REQUEST_ID_KEYS"] == environment["REQUEST_ID_KEYS"]


def test_a_client_that_came_through_a_proxy_stays_behind_it(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        proxy.settimeout(WAIT_SECONDS)
        kafka_proxies = {"issuer": proxy.getsockname()[1]}
        with LocalStack(tmp_path, names=("kafka",), kafka_proxies=kafka_proxies) as stack:
            assert _brokers(stack.kafka_bootstrap_servers) == {stack.kafka_bootstrap_servers}
            with pytest.raises(KafkaException):  # a proxy that lets nothing through
                _brokers(f"127.0.0.1:{stack.kafka_port('issuer')}")
            proxy.accept()[0].close()
            with pytest.raises(StackError, match="does not listen for a proxy api"):
                stack.kafka_port("api")


def test_a_process_can_have_variables_of_its_own(tmp_path: Path) -> None:
    names = (*PARTS, "migrate", "api", "issuer")
    with LocalStack(tmp_path, names, {"POLL_RECORDS": "9"}, overrides={"issuer": {"POLL_RECORDS": "7"}}) as stack:
        stack.add_issuer("issuer-1", {"POLL_RECORDS": "8"})
        running = {name: psutil.Process(stack.pid(name)) for name in ("api", "issuer", "issuer-1")}
        told = {name: process.environ()["POLL_RECORDS"] for name, process in running.items()}
    assert told == {"api": "9", "issuer": "7", "issuer-1": "8"}


def test_a_part_can_keep_its_data_elsewhere(tmp_path: Path) -> None:
    elsewhere = {name: tmp_path / "elsewhere" / name for name in ("kafka", "postgres", "valkey")}
    (tmp_path / "elsewhere").mkdir()
    with LocalStack(tmp_path / "stack", directories=elsewhere) as stack:
        _tell(stack)
        assert _told(stack) == ("row", b"value", b"record")
    assert {path.name for path in (tmp_path / "stack").iterdir() if path.is_dir()} == {"log"}


@pytest.mark.parametrize("meant", [{"overrides": {"isuer": {}}}, {"directories": {"isuer": Path()}}])
def test_what_is_meant_for_nobody_is_refused(tmp_path: Path, meant: dict[str, Any]) -> None:
    with pytest.raises(StackError, match="this stack does not run isuer: choose from "):
        LocalStack(tmp_path, EVERYTHING, **meant)


def test_a_start_that_was_killed_half_way_is_made_good(tmp_path: Path) -> None:
    (tmp_path / "postgres.draft").mkdir()
    (tmp_path / "postgres.draft" / "PG_VERSION").write_text("18\n")
    with LocalStack(tmp_path, names=("postgres",)) as stack, psycopg.connect(stack.database_url) as connection:
        assert connection.execute("select 1").fetchone() == (1,)


def test_a_part_that_cannot_start_is_named_with_the_end_of_its_log(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir(mode=0o700)
    with pytest.raises(CannotStart, match=r"postgres exited with status 2 before it was ready; .*\n.*postgresql.conf"):
        LocalStack(tmp_path, names=("valkey", "postgres")).up()
    assert not _processes_in(tmp_path)


@pytest.mark.parametrize("setting", ["fsync", "synchronous_commit", "full_page_writes"])
def test_a_database_that_could_lose_a_commit_is_refused(tmp_path: Path, setting: str, stack: LocalStack) -> None:
    stack.stop("postgres")
    shutil.copytree(stack.directory / "postgres", tmp_path / "postgres")
    stack.start("postgres")
    with (tmp_path / "postgres" / "postgresql.conf").open("a") as conf:
        conf.write(f"{setting} = off\n")
    with pytest.raises(StackError, match=f"PostgreSQL runs with {setting} off"):
        LocalStack(tmp_path, names=("postgres",)).up()
    assert not _processes_in(tmp_path)


def test_a_corrupt_or_half_written_jar_is_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("M2_REPO", str(tmp_path))
    jar = next(jar for jar in jars.locked() if jar.artifact == "slf4j-api")
    jar.path.parent.mkdir(parents=True)
    jar.path.write_bytes(b"half a j")
    jars.fetch([jar])
    assert jar.intact


def test_a_port_of_the_users_choice_that_is_in_use_is_named_before_anything_starts(tmp_path: Path) -> None:
    with _listening(0) as port, pytest.raises(PortTaken, match=f"API_PORT={port} is in use"):
        LocalStack(tmp_path, names=("valkey", "api"), variables={"API_PORT": str(port)}).up()
    assert not (tmp_path / "valkey").exists()


def test_up_runs_everything_and_a_kill_of_it_ends_everything(tmp_path: Path) -> None:
    with _command("up", tmp_path) as first:
        running = read_exports(tmp_path / "env")
        for url in (f"{running['API_URL']}/readyz", f"{running['ISSUER_URL']}/readyz", f"{running['FLOWER_URL']}/"):
            assert httpx.get(url, follow_redirects=True).status_code == 200
        second = subprocess.run(_argv("parts", tmp_path), cwd=ROOT, capture_output=True, text=True, check=False)
        assert second.returncode == 1
        assert f"already runs as process {first.pid}, API_URL={running['API_URL']}" in second.stderr
        family = psutil.Process(first.pid).children(recursive=True)
        first.send_signal(signal.SIGTERM)
        assert first.wait(WAIT_SECONDS) == 0
    assert all(map(tree.gone, family))
    assert not (tmp_path / "env").exists()


def test_what_a_killed_process_had_started_is_ended_before_it_is_started_again(tmp_path: Path) -> None:
    argv = ("/bin/sh", "-c", "sleep 600 & exec sleep 600")
    part = Part(name="parent", argv=argv, env=dict(os.environ), cwd=tmp_path)
    with LocalStack(tmp_path, names=()) as stack:
        stack.add(part)
        eventually(lambda: bool(psutil.Process(stack.pid("parent")).children()))
        orphan = psutil.Process(stack.pid("parent")).children()[0]
        os.kill(stack.pid("parent"), signal.SIGKILL)
        eventually(lambda: tree.gone(orphan))


def test_a_killed_supervisor_leaves_nothing_running_and_what_it_left_starts_again(tmp_path: Path) -> None:
    with _command("parts", tmp_path) as killed:
        assert set(ADDRESSES) <= set(read_exports(tmp_path / "env"))
        family = psutil.Process(killed.pid).children(recursive=True)
        killed.kill()
    eventually(lambda: all(map(tree.gone, family)))
    assert not (tmp_path / "env").exists()
    with LocalStack(tmp_path) as stack:
        _tell(stack)
        assert _told(stack) == ("row", b"value", b"record")


def test_ctrl_c_while_starting_leaves_nothing(tmp_path: Path) -> None:
    starting = subprocess.Popen(_argv("parts", tmp_path), cwd=ROOT, stdout=subprocess.DEVNULL)
    supervisor = psutil.Process(starting.pid)
    eventually(lambda: len(supervisor.children()) >= 3)
    family = supervisor.children(recursive=True)
    starting.send_signal(signal.SIGINT)
    assert starting.wait(WAIT_SECONDS) == 0
    assert all(map(tree.gone, family))


def _tell(stack: LocalStack) -> None:
    with psycopg.connect(stack.database_url) as connection:
        connection.execute("create table kept as select 'row' as text")
    with redis.Redis.from_url(stack.redis_url) as client:
        client.set("kept", "value")
    admin = AdminClient({"bootstrap.servers": stack.kafka_bootstrap_servers})
    admin.create_topics([NewTopic(TOPIC, 1)])[TOPIC].result()
    producer = Producer({"bootstrap.servers": stack.kafka_bootstrap_servers})
    producer.produce(TOPIC, b"record")
    assert producer.flush(WAIT_SECONDS) == 0


def _told(stack: LocalStack) -> tuple[str, bytes, bytes]:
    with psycopg.connect(stack.database_url) as connection:
        row = connection.execute("select text from kept").fetchone()
    with redis.Redis.from_url(stack.redis_url) as client:
        value = client.get("kept")
    assert row
    assert isinstance(value, bytes)
    return row[0], value, _first_record(stack.kafka_bootstrap_servers)


def _brokers(servers: str) -> set[str]:
    """Where a client that bootstraps here is told to go."""
    brokers = AdminClient({"bootstrap.servers": servers, "log_level": 0}).list_topics(timeout=5).brokers.values()
    return {f"{broker.host}:{broker.port}" for broker in brokers}


def _first_record(servers: str) -> bytes:
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "test", "auto.offset.reset": "earliest"})
    try:
        consumer.subscribe([TOPIC])
        message = consumer.poll(WAIT_SECONDS)
        assert message
        value = message.value()
        assert isinstance(value, bytes)
        return value
    finally:
        consumer.close()


@contextmanager
def _listening(port: int) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", port)) as listener:
        yield listener.getsockname()[1]


def _argv(command: str, directory: Path) -> list[str]:
    return [sys.executable, "-m", "stack", command, "--directory", str(directory)]


@contextmanager
def _command(command: str, directory: Path) -> Iterator[subprocess.Popen[str]]:
    """A started command that has said how to stop it."""
    with subprocess.Popen(_argv(command, directory), cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            assert any("Ctrl-C" in line for line in process.stdout)
            yield process
        finally:
            process.kill()


def _processes_in(directory: Path) -> list[psutil.Process]:
    """The processes whose command line names this directory."""
    running = psutil.process_iter(["cmdline"])
    return [process for process in running if str(directory) in " ".join(process.info["cmdline"] or [])]
