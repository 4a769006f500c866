"""Unit tests of the local stack: restart delays, ports, settings, the env file, logs, jars and the reaper's input."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from stack import jars, logs, ports, reaper, settings
from stack.credentials import Credentials
from stack.errors import PortTaken, StackError
from stack.files import load_or_create_secret, read_exports, write_exports
from stack.local import LocalStack
from stack.restarter import restart_delay
from stack.server_env import ROOT
from stack.servers import kafka
from stack.startup import EVERYTHING

_SECRETS = ("admin", "owner", "app", "valkey", "flower", "keys", "jwt", "tickets")
CREDENTIALS = Credentials(*(name * 4 for name in _SECRETS))


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port on which another socket listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_restart_delay_doubles_up_to_the_maximum() -> None:
    delays = [0.0]
    while len(delays) < 8:
        delays.append(restart_delay(delays[-1], lived_seconds=1.0))
    assert delays[1:] == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


def test_restart_delay_is_reset_after_a_process_lived_a_minute() -> None:
    assert restart_delay(10.0, lived_seconds=60.0) == 0.5


def test_a_remembered_port_takes_precedence_over_a_preferred_port(tmp_path: Path) -> None:
    first = ports.assign(tmp_path / "ports.json", {"api": None})
    assert ports.assign(tmp_path / "ports.json", {"api": ports.any_free()}) == first


def test_a_remembered_port_that_is_taken_is_replaced(tmp_path: Path) -> None:
    first = ports.assign(tmp_path / "ports.json", {"api": None})
    with socket.create_server(("127.0.0.1", first["api"])):
        assert ports.assign(tmp_path / "ports.json", {"api": None}) != first


def test_a_preferred_port_that_is_taken_is_not_assigned(tmp_path: Path, taken_port: int) -> None:
    assert ports.assign(tmp_path / "ports.json", {"api": taken_port})["api"] != taken_port


def test_two_processes_never_get_the_same_port(tmp_path: Path) -> None:
    preferred = ports.any_free()
    assert len(set(ports.assign(tmp_path / "ports.json", {"api": preferred, "issuer": preferred}).values())) == 2


def test_a_user_port_that_is_taken_is_refused_by_name(taken_port: int) -> None:
    with pytest.raises(PortTaken, match=f"^API_PORT={taken_port} is in use: "):
        ports.user_ports({"API_PORT": str(taken_port)}, {"API_PORT": "api"})


@pytest.mark.parametrize("text", ["0", "65536", "-1", "http", "８０"])
def test_an_invalid_user_port_is_refused_by_name(text: str) -> None:
    with pytest.raises(StackError, match=f"^API_PORT={text} is not a port: "):
        ports.user_ports({"API_PORT": text}, {"API_PORT": "api"})


def test_the_address_of_a_kubernetes_service_is_no_port() -> None:
    """As if the variable were not set."""
    assert ports.user_ports({"API_PORT": "tcp://10.0.0.1:8000"}, {"API_PORT": "api"}) == {}


def test_a_server_is_external_only_if_every_address_of_it_is_set() -> None:
    assert "valkey" in settings.processes_to_start(EVERYTHING, {"REDIS_URL": "redis://elsewhere/0"})
    both = {"REDIS_URL": "redis://elsewhere/0", "CELERY_BROKER_URL": "redis://elsewhere/1"}
    assert "valkey" not in settings.processes_to_start(EVERYTHING, both)
    assert "kafka" in settings.processes_to_start(EVERYTHING, {"KAFKA_BOOTSTRAP_SERVERS": ""})


def test_what_the_user_has_in_a_file_is_used_as_if_it_were_set(tmp_path: Path) -> None:
    """And the stack does not set it: no process has a variable beside its file."""
    (tmp_path / "url").write_text("postgresql://me:mine@elsewhere/coupons\n")
    (tmp_path / "keys").write_text("k" * 16)
    shell = {"DATABASE_URL_FILE": f"{tmp_path}/url", "REQUEST_ID_KEYS_FILE": f"{tmp_path}/keys", "WEBHOOK_URL_FILE": ""}

    user_env = settings.user_environment(shell, {})
    environment = settings.process_environment(CREDENTIALS, {}, user_env)

    assert "postgres" not in settings.processes_to_start(EVERYTHING, user_env)
    assert environment["DATABASE_URL"] == "postgresql://me:mine@elsewhere/coupons"
    assert environment["REQUEST_ID_KEYS"] == "k" * 16
    assert not [name for name in environment if name.endswith("_FILE")]


def test_a_file_that_cannot_be_used_stops_the_stack(tmp_path: Path) -> None:
    """Every fault at once, and no content."""
    (tmp_path / "keys").write_text("k" * 16)
    shell = {
        "DATABASE_URL_FILE": f"{tmp_path}/absent",
        "REQUEST_ID_KEYS_FILE": f"{tmp_path}/keys",
        "REQUEST_ID_KEYS": "another",
    }
    with pytest.raises(StackError) as caught:
        settings.user_environment(shell, {})

    assert set(str(caught.value).splitlines()) == {
        f"DATABASE_URL: DATABASE_URL_FILE={tmp_path}/absent: the file cannot be read: No such file or directory",
        "REQUEST_ID_KEYS: is set, and REQUEST_ID_KEYS_FILE as well: unset one of them",
    }


def test_a_stack_that_ignores_the_shell_ignores_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The servers of a demo or a test are its own: what it sets takes the place of a file."""
    for name in ("DATABASE_URL", "REDIS_URL", "CELERY_BROKER_URL", "KAFKA_SASL_PASSWORD", "WEBHOOK_SECRET"):
        monkeypatch.setenv(f"{name}_FILE", "/absent")

    user_env = settings.user_environment(os.environ, settings.ISOLATED | {"WEBHOOK_SECRET": "whsec_of_a_test"})

    assert user_env["WEBHOOK_SECRET"] == "whsec_of_a_test"
    assert settings.processes_to_start(EVERYTHING, user_env) == list(EVERYTHING)
    assert not [name for name in user_env if name.removesuffix("_FILE") in settings.ISOLATED and name.endswith("_FILE")]
    LocalStack(tmp_path, EVERYTHING, settings.ISOLATED | {"WEBHOOK_SECRET": "whsec_of_a_test"})


def test_a_shell_that_reads_the_env_file_has_no_value_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL_FILE", "/run/secrets/url")
    write_exports(tmp_path / "env", settings.exports({"DATABASE_URL": "postgresql://host/db", "AUTH": "off"}))

    assert read_exports(tmp_path / "env") == {
        "DATABASE_URL": "postgresql://host/db",
        "DATABASE_URL_FILE": "",
        "AUTH": "off",
    }


def test_three_brokers_are_three_processes_and_two_are_refused() -> None:
    three = {"KAFKA_BROKERS": "3"}
    started = settings.processes_to_start(("kafka", "valkey"), three)
    assert started == ["kafka-1", "kafka-2", "kafka-3", "valkey"]
    assert settings.processes_to_start(("kafka",), three | {"KAFKA_BOOTSTRAP_SERVERS": "elsewhere:9092"}) == []
    with pytest.raises(StackError, match=r"^KAFKA_BROKERS=2 is not supported: set it to 1 or 3$"):
        settings.processes_to_start(("kafka",), {"KAFKA_BROKERS": "2"})


def test_topics_have_three_replicas_on_three_brokers_unless_the_user_sets_replication() -> None:
    three_nodes = {f"kafka-{number}{suffix}": number for number in (1, 2, 3) for suffix in ("", "_controller")}
    environment = settings.process_environment(CREDENTIALS, three_nodes, {})
    assert (environment["TOPIC_REPLICATION"], environment["TOPIC_MIN_INSYNC_REPLICAS"]) == ("3", "2")
    assert environment["KAFKA_BOOTSTRAP_SERVERS"] == "127.0.0.1:1,127.0.0.1:2,127.0.0.1:3"
    environment = settings.process_environment(CREDENTIALS, three_nodes, {"TOPIC_REPLICATION": "1"})
    assert (environment["TOPIC_REPLICATION"], environment.get("TOPIC_MIN_INSYNC_REPLICAS")) == ("1", None)


def test_three_brokers_are_refused_without_enough_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka, "THREE_BROKERS_MB", 10**9)
    assert not kafka.memory_shortage(brokers=1)
    with pytest.raises(StackError, match=r"^3 Kafka brokers need 1000000000 MB of memory and \d+ MB are free: "):
        LocalStack(tmp_path, ("kafka",), settings.ISOLATED | {"KAFKA_BROKERS": "3"}).up()


def test_a_proxy_to_three_brokers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StackError, match=r"^a Kafka proxy supports one broker: "):
        LocalStack(tmp_path, ("kafka",), settings.ISOLATED | {"KAFKA_BROKERS": "3"}, kafka_proxies={"issuer": 1}).up()


def test_celery_over_kafka_uses_the_same_kafka_and_starts_no_flower() -> None:
    user_env = {"CELERY_BROKER_URL": settings.CELERY_OVER_KAFKA}
    environment = settings.process_environment(CREDENTIALS, {"kafka": 1, "kafka_controller": 2, "valkey": 3}, user_env)
    assert environment["CELERY_BROKER_URL"] == "confluentkafka://127.0.0.1:1"
    external = settings.process_environment(
        CREDENTIALS, {}, user_env | {"KAFKA_BOOTSTRAP_SERVERS": "one:9092,two:9092"}
    )
    assert external["CELERY_BROKER_URL"] == "confluentkafka://one:9092"
    assert set(EVERYTHING) - set(settings.processes_to_start(EVERYTHING, user_env)) == {"flower"}
    assert "flower" in settings.processes_to_start(EVERYTHING, {"CELERY_BROKER_URL": "redis://elsewhere/1"})


def test_user_variables_reach_the_processes_except_a_host_that_is_not_loopback() -> None:
    user_env = {"REQUEST_ID_KEYS": "mine", "DATABASE_URL": "postgresql://elsewhere/db", "API_HOST": "0.0.0.0"}
    environment = settings.process_environment(CREDENTIALS, {"kafka": 1, "kafka_controller": 2, "api": 3}, user_env)
    assert environment["REQUEST_ID_KEYS"] == "mine"
    assert environment["DATABASE_URL"] == "postgresql://elsewhere/db"
    assert environment["KAFKA_BOOTSTRAP_SERVERS"] == "127.0.0.1:1"
    assert (environment["API_HOST"], environment["API_PORT"], environment["API_URL"]) == (
        "127.0.0.1",
        "3",
        "http://127.0.0.1:3",
    )


def test_the_application_and_the_migration_have_roles_of_their_own() -> None:
    environment = settings.process_environment(CREDENTIALS, {"postgres": 1}, {})
    assert environment["DATABASE_URL"] == f"postgresql://coupons:{CREDENTIALS.postgres_application}@127.0.0.1:1/coupons"
    owner = f"postgresql://coupons_owner:{CREDENTIALS.postgres_owner}@127.0.0.1:1/coupons"
    assert environment["MIGRATE_DATABASE_URL"] == owner
    assert "MIGRATE_DATABASE_URL" not in settings.process_environment(CREDENTIALS, {}, {})
    assert CREDENTIALS.postgres_admin not in " ".join(environment.values())


def test_flower_has_generated_credentials_unless_the_user_sets_some() -> None:
    assert settings.process_environment(CREDENTIALS, {}, {})["FLOWER_BASIC_AUTH"] == f"coupons:{CREDENTIALS.flower}"
    mine = {"FLOWER_BASIC_AUTH": "me:mine"}
    assert settings.process_environment(CREDENTIALS, {}, mine)["FLOWER_BASIC_AUTH"] == "me:mine"


def test_credentials_are_created_once_in_a_directory_that_only_the_owner_can_enter(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir(mode=0o755)
    first = Credentials.load_or_create(tmp_path / "secrets")
    assert len(set(vars(first).values())) == len(vars(first))
    assert Credentials.load_or_create(tmp_path / "secrets") == first
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in (tmp_path / "secrets").iterdir()} == {0o600}


def test_a_secret_is_created_once_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    first = load_or_create_secret(tmp_path / "key")
    assert len(bytes.fromhex(first)) == 32
    assert load_or_create_secret(tmp_path / "key") == first
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600


def test_a_shell_reads_exported_values_unchanged(tmp_path: Path) -> None:
    variables = {"PLAIN": "a", "HARD": 'it\'s $HOME = "b" export\n c'}
    write_exports(tmp_path / "env", variables)
    assert read_exports(tmp_path / "env") == variables
    command = ["/bin/sh", "-c", '. "$0"; printf "%s" "$HARD"', str(tmp_path / "env")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == variables["HARD"]


def test_a_log_tail_begins_at_the_last_start(tmp_path: Path) -> None:
    log = tmp_path / "part.log"
    log.write_bytes(logs.start_marker() + b"old\n" + logs.start_marker() + b"new\n")
    assert logs.tail(log) == f"the end of {log}:\n    new"


def test_the_reaper_keeps_processes_that_are_registered_and_not_unregistered() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        details = reaper.registration(2, signal.SIGTERM, 1.5)
        registered = reaper.read_registrations(
            [f"+ {os.getpid()} {details}\n", f"+ {child.pid} {details}\n", f"- {os.getpid()}\n"]
        )
        assert list(registered) == [child.pid]
        stage, target = registered[child.pid]
        assert (stage, target.stop_signal, target.timeout_seconds) == (2, signal.SIGTERM, 1.5)
        child.communicate(b"\n")


def test_a_jar_with_a_wrong_hash_is_downloaded_once_more_and_then_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    downloaded: list[str] = []

    def corrupt(_: str, artifact: str, __: str) -> Path:
        downloaded.append(artifact)
        jar.path.parent.mkdir(parents=True, exist_ok=True)
        jar.path.write_bytes(b"not the jar")
        return jar.path

    monkeypatch.setenv("M2_REPO", str(tmp_path))
    monkeypatch.setattr(jars, "download", corrupt)
    jar = jars.Jar("org.example", "part", "1.0", "0" * 64)
    with pytest.raises(StackError, match=r"^org\.example:part:1\.0 cannot be downloaded: its content"):
        jars.download_missing([jar])
    assert downloaded == ["part", "part"]
    assert not jar.path.exists()


def test_the_lock_file_pins_kafka_and_contains_no_urls() -> None:
    assert any(str(jar) == jars.BROKER for jar in jars.read_lock())
    assert "://" not in jars.LOCK.read_text()
    assert all(len(bytes.fromhex(jar.sha256)) == 32 for jar in jars.read_lock())


def test_the_reaper_ignores_a_process_that_has_already_exited() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    assert not psutil.pid_exists(ended.pid)
    assert reaper.read_registrations([f"+ {ended.pid} {reaper.registration(0, signal.SIGTERM, 1)}\n"]) == {}


def test_a_user_without_a_home_keeps_the_jars_in_the_stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As service accounts and containers have it; a repository that is named comes first."""
    monkeypatch.delenv("M2_REPO", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert jars.repository() == tmp_path / ".m2" / "repository"
    monkeypatch.setenv("HOME", str(tmp_path / "nonexistent"))
    assert jars.repository() == ROOT / ".stack" / "m2"
    monkeypatch.setenv("M2_REPO", str(tmp_path / "jars"))
    assert jars.repository() == tmp_path / "jars"
