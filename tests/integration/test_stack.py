"""The local stack with real servers: start, restart after a kill, durable data, and a stop that leaves no process."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
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

from stack import jars, process_tree
from stack.errors import AlreadyRunning, CannotStart, PortTaken, StackError
from stack.files import read_exports
from stack.local import LocalStack
from stack.process_spec import ProcessSpec
from stack.startup import EVERYTHING, SERVERS
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]
ADDRESSES = ("KAFKA_BOOTSTRAP_SERVERS", "DATABASE_URL", "REDIS_URL", "CELERY_BROKER_URL")
TOPIC = "KEPT"
WAIT_SECONDS = 60.0


@pytest.fixture(autouse=True, scope="module")
def _no_external_servers() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in (*ADDRESSES, "API_PORT", "ISSUER_PORT", "FLOWER_PORT"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    with LocalStack(tmp_path_factory.mktemp("stack")) as running:
        yield running


def test_each_server_answers_at_its_address(stack: LocalStack) -> None:
    with psycopg.connect(stack.database_url) as connection:
        assert connection.info.dbname == "coupons"
    for url in (stack.redis_url, stack.celery_broker_url):
        with redis.Redis.from_url(url) as client:
            assert client.ping()
    assert AdminClient({"bootstrap.servers": stack.kafka_bootstrap_servers}).list_topics(timeout=5).brokers


def test_postgresql_runs_with_durable_commits(stack: LocalStack) -> None:
    with psycopg.connect(stack.database_url) as connection:
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            assert connection.execute("select current_setting(%s)", [setting]).fetchone() == ("on",)


def test_kafka_does_not_create_a_topic_on_produce(stack: LocalStack) -> None:
    servers = {"bootstrap.servers": stack.kafka_bootstrap_servers}
    errors: list[KafkaError | None] = []
    producer = Producer({**servers, "message.timeout.ms": 2000})
    producer.produce("NOT_CREATED", b"record", on_delivery=lambda error, _: errors.append(error))
    assert producer.flush(WAIT_SECONDS) == 0
    assert len(errors) == 1
    assert errors[0]
    assert "NOT_CREATED" not in producer.list_topics(timeout=5).topics


def test_every_server_listens_on_loopback_only(stack: LocalStack) -> None:
    hosts = {
        connection.laddr.ip
        for name in ("kafka", "postgres", "valkey")
        for connection in psutil.Process(stack.pid(name)).net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert {host.removeprefix("::ffff:") for host in hosts} == {"127.0.0.1"}


@pytest.mark.parametrize("name", ["kafka", "postgres", "valkey"])
def test_a_killed_server_is_restarted(stack: LocalStack, name: str) -> None:
    killed = stack.pid(name)
    stack.kill(name)
    stack.wait_up(name)
    assert stack.pid(name) != killed
    assert f"{name:<9} is back" in (stack.directory / "log" / "stack.log").read_text()


def test_a_process_that_has_just_ended_is_waited_for_until_it_is_restarted(stack: LocalStack) -> None:
    killed = psutil.Process(stack.pid("valkey"))
    killed.kill()
    while not process_tree.has_exited(killed):
        pass  # no pause: the thread that restarts it has not seen its exit yet
    stack.wait_up("valkey")
    assert stack.pid("valkey") != killed.pid


def test_a_stopped_server_is_not_restarted_until_start(stack: LocalStack) -> None:
    stack.stop("valkey")
    try:
        with pytest.raises(StackError, match="valkey is not running"):
            stack.pid("valkey")
        with redis.Redis.from_url(stack.redis_url) as client, pytest.raises(redis.ConnectionError):
            client.ping()
    finally:
        stack.start("valkey")
    assert psutil.pid_exists(stack.pid("valkey"))


def test_a_crashed_server_is_not_restarted_until_start_and_keeps_its_commits(stack: LocalStack) -> None:
    with psycopg.connect(stack.admin_database_url) as connection:
        connection.execute("create table survives as select 1")
    stack.crash("postgres")
    try:
        with pytest.raises(StackError, match="postgres is not running"):
            stack.pid("postgres")
    finally:
        stack.start("postgres")
    assert "was not properly shut down" in (stack.directory / "log" / "postgres.log").read_text()
    with psycopg.connect(stack.admin_database_url) as connection:
        assert connection.execute("select * from survives").fetchone() == (1,)


def test_a_frozen_server_does_not_answer_until_thaw(stack: LocalStack) -> None:
    with psycopg.connect(stack.database_url) as connection, ThreadPoolExecutor(1) as pool:
        stack.freeze("postgres")
        answer = pool.submit(lambda: connection.execute("select 1").fetchone())
        try:
            with pytest.raises(TimeoutError):
                answer.result(timeout=1)
        finally:
            stack.thaw("postgres")
        assert answer.result(timeout=WAIT_SECONDS) == (1,)


@pytest.mark.parametrize("name", ["kafka", "postgres", "valkey"])
def test_a_frozen_server_stops_in_time(stack: LocalStack, name: str) -> None:
    frozen = psutil.Process(stack.pid(name))
    with psycopg.connect(stack.database_url):  # each PostgreSQL connection is a process, which is frozen too
        stack.freeze(name)
        stopping_at = time.monotonic()
        stack.stop(name)
    assert process_tree.has_exited(frozen)
    assert time.monotonic() - stopping_at < 8
    stack.start(name)


def test_a_second_stack_in_the_same_directory_is_refused(stack: LocalStack) -> None:
    with pytest.raises(AlreadyRunning, match=f"already runs as process {os.getpid()}"):
        LocalStack(stack.directory).up()
    assert psutil.pid_exists(stack.pid("valkey"))


def test_an_external_database_is_used_and_not_started(stack: LocalStack, tmp_path: Path) -> None:
    variables = {"DATABASE_URL": stack.database_url}
    with LocalStack(tmp_path, names=("postgres", "valkey"), variables=variables) as other:
        assert other.database_url == stack.database_url
        assert not (tmp_path / "postgres").exists()
        with pytest.raises(StackError, match="does not run postgres"):
            other.pid("postgres")


def test_data_survives_a_restart_on_another_port(tmp_path: Path) -> None:
    with LocalStack(tmp_path) as stack:
        _write(stack)
        environment = stack.environment
    taken = int(environment["KAFKA_BOOTSTRAP_SERVERS"].rpartition(":")[2])
    with _listening(taken), LocalStack(tmp_path) as stack:
        assert _read(stack) == ("row", b"value", b"record")
        assert stack.database_url == environment["DATABASE_URL"]
        assert stack.kafka_bootstrap_servers != environment["KAFKA_BOOTSTRAP_SERVERS"]
        assert stack.environment["REQUEST_ID_KEYS"] == environment["REQUEST_ID_KEYS"]


def test_a_client_that_connects_through_a_proxy_gets_the_proxys_address(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        proxy.settimeout(1)
        kafka_proxies = {"issuer": proxy.getsockname()[1]}
        with LocalStack(tmp_path, names=("kafka",), kafka_proxies=kafka_proxies) as stack:
            assert _brokers(stack.kafka_bootstrap_servers) == {stack.kafka_bootstrap_servers}
            through = f"127.0.0.1:{stack.kafka_port('issuer')}"
            client = AdminClient({"bootstrap.servers": through, "log_level": 0})

            def accept() -> socket.socket:
                with suppress(KafkaException):  # the proxy forwards nothing; the bootstrap server may have answered
                    client.list_topics(timeout=1)
                return proxy.accept()[0]

            eventually(accept, within_seconds=WAIT_SECONDS).close()
            with pytest.raises(StackError, match="does not listen for a proxy api"):
                stack.kafka_port("api")


def test_overrides_apply_to_a_single_process(tmp_path: Path) -> None:
    names = (*SERVERS, "migrate", "api", "issuer")
    with LocalStack(tmp_path, names, {"POLL_RECORDS": "9"}, overrides={"issuer": {"POLL_RECORDS": "7"}}) as stack:
        stack.add_issuer("issuer-1", {"POLL_RECORDS": "8"})
        running = {name: psutil.Process(stack.pid(name)) for name in ("api", "issuer", "issuer-1")}
        poll_records = {name: process.environ()["POLL_RECORDS"] for name, process in running.items()}
    assert poll_records == {"api": "9", "issuer": "7", "issuer-1": "8"}


def test_a_server_can_have_its_data_in_another_directory(tmp_path: Path) -> None:
    elsewhere = {name: tmp_path / "elsewhere" / name for name in ("kafka", "postgres", "valkey")}
    (tmp_path / "elsewhere").mkdir()
    with LocalStack(tmp_path / "stack", directories=elsewhere) as stack:
        _write(stack)
        assert _read(stack) == ("row", b"value", b"record")
    assert {path.name for path in (tmp_path / "stack").iterdir() if path.is_dir()} == {"log", "secrets"}


def test_directories_may_have_any_letters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a Korean home, and those that end a path in a setting or in a list; the jars are there as well."""
    strange = tmp_path / "홍길동, 'a\\b\" %c"
    strange.mkdir()
    (strange / "jars").symlink_to(jars.repository())
    monkeypatch.setenv("M2_REPO", str(strange / "jars"))
    with LocalStack(strange / "stack") as stack:
        _write(stack)
        stack.restart("kafka")
        assert _read(stack) == ("row", b"value", b"record")
    assert {path.name for path in strange.iterdir()} == {"jars", "stack"}


def test_a_stack_goes_on_when_nobody_reads_its_output(tmp_path: Path) -> None:
    """`make up | head`: a process that ends is still restarted, which is a line for nobody."""
    with _command("servers", tmp_path) as running:
        assert running.stdout
        running.stdout.close()
        for process in psutil.Process(running.pid).children():
            if "valkey" in process.name():
                process.kill()
                process.wait(WAIT_SECONDS)
        log = tmp_path / "log" / "stack.log"
        eventually(lambda: "valkey    is back" in log.read_text(), within_seconds=WAIT_SECONDS)
        with redis.Redis.from_url(read_exports(tmp_path / "env")["REDIS_URL"]) as client:
            assert client.ping()
        running.send_signal(signal.SIGTERM)
        assert running.wait(WAIT_SECONDS) == 0


@pytest.mark.parametrize("arguments", [{"overrides": {"isuer": {}}}, {"directories": {"isuer": Path()}}])
def test_settings_for_an_unknown_process_are_refused(tmp_path: Path, arguments: dict[str, Any]) -> None:
    with pytest.raises(StackError, match="this stack does not run isuer: choose from "):
        LocalStack(tmp_path, EVERYTHING, **arguments)


def test_a_half_initialised_data_directory_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "postgres.draft").mkdir()
    (tmp_path / "postgres.draft" / "PG_VERSION").write_text("18\n")
    with LocalStack(tmp_path, names=("postgres",)) as stack, psycopg.connect(stack.database_url) as connection:
        assert connection.execute("select 1").fetchone() == (1,)


def test_a_failed_start_is_reported_with_the_end_of_the_log(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir(mode=0o700)
    with pytest.raises(CannotStart, match=r"postgres exited with status 2 before it was ready; .*\n.*postgresql.conf"):
        LocalStack(tmp_path, names=("valkey", "postgres")).up()
    assert not _processes_in(tmp_path)


@pytest.mark.parametrize("setting", ["fsync", "synchronous_commit", "full_page_writes"])
def test_a_database_without_durable_commits_is_refused(tmp_path: Path, setting: str, stack: LocalStack) -> None:
    stack.stop("postgres")
    try:
        for name in ("postgres", "secrets"):
            shutil.copytree(stack.directory / name, tmp_path / name)
    finally:
        stack.start("postgres")
    with (tmp_path / "postgres" / "postgresql.conf").open("a") as conf:
        conf.write(f"{setting} = off\n")
    with pytest.raises(StackError, match=f"PostgreSQL runs with {setting} off"):
        LocalStack(tmp_path, names=("postgres",)).up()
    assert not _processes_in(tmp_path)


def test_a_damaged_jar_is_downloaded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("M2_REPO", str(tmp_path))
    jar = next(jar for jar in jars.read_lock() if jar.artifact == "slf4j-api")
    jar.path.parent.mkdir(parents=True)
    jar.path.write_bytes(b"half a j")
    jars.download_missing([jar])
    assert jar.intact


def test_a_user_port_in_use_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with _listening(0) as port, pytest.raises(PortTaken, match=f"API_PORT={port} is in use"):
        LocalStack(tmp_path, names=("valkey", "api"), variables={"API_PORT": str(port)}).up()
    assert not (tmp_path / "valkey").exists()


def test_up_runs_everything_and_sigterm_stops_everything(tmp_path: Path) -> None:
    with _command("up", tmp_path) as first:
        running = read_exports(tmp_path / "env")
        for url in (f"{running['API_URL']}/readyz", f"{running['ISSUER_URL']}/readyz"):
            assert httpx.get(url).status_code == 200
        user, _, password = running["FLOWER_BASIC_AUTH"].partition(":")
        assert httpx.get(running["FLOWER_URL"]).status_code == 401
        assert httpx.get(running["FLOWER_URL"], auth=(user, password)).status_code == 200
        second = subprocess.run(_argv("servers", tmp_path), cwd=ROOT, capture_output=True, text=True, check=False)
        assert second.returncode == 1
        assert f"already runs as process {first.pid}, API_URL={running['API_URL']}" in second.stderr
        tree = psutil.Process(first.pid).children(recursive=True)
        first.send_signal(signal.SIGTERM)
        assert first.wait(WAIT_SECONDS) == 0
    assert all(map(process_tree.has_exited, tree))
    assert not (tmp_path / "env").exists()


def test_children_of_a_killed_process_are_stopped_before_its_restart(tmp_path: Path) -> None:
    argv = ("/bin/sh", "-c", "sleep 600 & exec sleep 600")
    spec = ProcessSpec(name="parent", argv=argv, env=dict(os.environ), cwd=tmp_path)
    with LocalStack(tmp_path, names=()) as stack:
        stack.add(spec)
        eventually(lambda: bool(psutil.Process(stack.pid("parent")).children()))
        orphan = psutil.Process(stack.pid("parent")).children()[0]
        os.kill(stack.pid("parent"), signal.SIGKILL)
        eventually(lambda: process_tree.has_exited(orphan))


def test_a_killed_supervisor_leaves_no_process_and_its_data_is_used_again(tmp_path: Path) -> None:
    with _command("servers", tmp_path) as killed:
        assert set(ADDRESSES) <= set(read_exports(tmp_path / "env"))
        tree = psutil.Process(killed.pid).children(recursive=True)
        killed.kill()
    eventually(lambda: all(map(process_tree.has_exited, tree)))
    assert not (tmp_path / "env").exists()
    with LocalStack(tmp_path) as stack:
        _write(stack)
        assert _read(stack) == ("row", b"value", b"record")


def test_ctrl_c_during_the_start_leaves_no_process(tmp_path: Path) -> None:
    starting = subprocess.Popen(_argv("servers", tmp_path), cwd=ROOT, stdout=subprocess.DEVNULL)
    supervisor = psutil.Process(starting.pid)
    eventually(lambda: len(supervisor.children()) >= 3)
    tree = supervisor.children(recursive=True)
    starting.send_signal(signal.SIGINT)
    assert starting.wait(WAIT_SECONDS) == 0
    assert all(map(process_tree.has_exited, tree))


def _write(stack: LocalStack) -> None:
    with psycopg.connect(stack.admin_database_url) as connection:
        connection.execute("create table kept as select 'row' as text")
    with redis.Redis.from_url(stack.redis_url) as client:
        client.set("kept", "value")
    admin = AdminClient({"bootstrap.servers": stack.kafka_bootstrap_servers})
    admin.create_topics([NewTopic(TOPIC, 1)])[TOPIC].result()
    producer = Producer({"bootstrap.servers": stack.kafka_bootstrap_servers})
    producer.produce(TOPIC, b"record")
    assert producer.flush(WAIT_SECONDS) == 0


def _read(stack: LocalStack) -> tuple[str, bytes, bytes]:
    with psycopg.connect(stack.admin_database_url) as connection:
        row = connection.execute("select text from kept").fetchone()
    with redis.Redis.from_url(stack.redis_url) as client:
        value = client.get("kept")
    assert row
    assert isinstance(value, bytes)
    return row[0], value, _first_record(stack.kafka_bootstrap_servers)


def _brokers(servers: str) -> set[str]:
    """Return the broker addresses that a client receives from this bootstrap server."""
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
    """Start a command and wait until its output says how to stop it."""
    with subprocess.Popen(_argv(command, directory), cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            assert any("Ctrl-C" in line for line in process.stdout)
            yield process
        finally:
            process.kill()


def _processes_in(directory: Path) -> list[psutil.Process]:
    """Return the processes whose command line contains this directory."""
    running = psutil.process_iter(["cmdline"])
    return [process for process in running if str(directory) in " ".join(process.info["cmdline"] or [])]
