"""The containers without a container engine: what their files say is checked, and what they run is run on this machine.

compose-spec.json is the Compose Specification's JSON schema, unchanged: schema/compose-spec.json of compose-go 2.16.2
(github.com/compose-spec/compose-go, Apache License 2.0).
"""

import json
import os
import re
import shlex
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

import pytest
import yaml
from jsonschema.validators import validator_for
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from service import config
from service.config import Settings
from stack import ports, settings
from stack.local import LocalStack
from stack.parts.processes import STOP_TIMEOUT_SECONDS
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads(Path(__file__).with_name("compose-spec.json").read_text())
RAW = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
GIVEN = {"REQUEST_ID_KEYS": "a key for the compose file's test", "POSTGRES_PASSWORD": "any/characters@:%"}

# What the file uses of compose's interpolation: $$, ${NAME}, ${NAME:-default}, ${NAME:?message}.
VARIABLE = re.compile(r"\$(?:\$|\{(?P<name>\w+)(?::(?P<sign>[-?])(?P<rest>[^}]*))?\})")
OTHERS_VARIABLES = {"PGPASSWORD", "FLOWER_ADDRESS", "FLOWER_UNAUTHENTICATED_API"}
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
ONE_SHOTS = [name for name, service in SERVICES.items() if service.get("restart") == "no"]
PROCESSES = [name for name in OURS if name not in ONE_SHOTS]
# uvicorn, done with its own shutdown, lets the signal have its way.
ENDS = dict.fromkeys(PROCESSES, 0) | {"api": -signal.SIGTERM}


def _seconds(duration: str) -> float:
    return float(duration.removesuffix("s"))


def _grace(name: str) -> float:
    return _seconds(SERVICES[name]["stop_grace_period"])


def test_the_file_follows_the_specification() -> None:
    validator = validator_for(SCHEMA)(SCHEMA)
    assert [error.message for error in validator.iter_errors(RAW)] == []


@pytest.mark.parametrize("name", GIVEN)
def test_a_secret_that_is_not_set_is_asked_for(name: str) -> None:
    others = {other: value for other, value in GIVEN.items() if other != name}
    with pytest.raises(LookupError, match=rf"{name}: make one with `openssl rand .* put {name}="):
        _interpolated(RAW, others)


@pytest.mark.parametrize("name", OURS)
def test_every_variable_is_a_setting(name: str) -> None:
    assert set(SERVICES[name]["environment"]) - OTHERS_VARIABLES <= {field.upper() for field in Settings.model_fields}


@pytest.mark.parametrize("name", OURS)
def test_the_settings_are_accepted(name: str) -> None:
    with mock.patch.dict(os.environ, SERVICES[name]["environment"], clear=True):
        told = config.load()
    assert told.request_id_keys.get_secret_value() == GIVEN["REQUEST_ID_KEYS"]


def test_every_process_is_one_word_to_the_one_image() -> None:
    assert {name: SERVICES[name]["command"] for name in OURS} == {name: name for name in OURS}
    assert {(SERVICES[name]["image"], SERVICES[name]["build"]) for name in OURS} == {("coupons:local", ".")}


def test_what_is_published_is_published_on_loopback() -> None:
    published = {name: port for name, service in SERVICES.items() for port in service.get("ports", ())}
    assert published == {"api": "127.0.0.1:8000:8000", "flower": "127.0.0.1:5555:5555"}


def test_every_image_of_others_is_pinned() -> None:
    images = {name: service["image"] for name, service in SERVICES.items() if name not in OURS}
    assert [image for image in images.values() if not re.fullmatch(r"[\w./-]+:\d+\.\d+[\w.-]*", image)] == []


def test_every_service_but_the_one_shot_is_restarted_and_has_a_health_check() -> None:
    assert ONE_SHOTS == ["migrate"]
    assert [name for name, service in SERVICES.items() if service.get("restart") != "unless-stopped"] == ONE_SHOTS
    assert [name for name, service in SERVICES.items() if "healthcheck" not in service] == ONE_SHOTS


def test_what_a_service_waits_for_will_come() -> None:
    for service in SERVICES.values():
        for awaited, how in service.get("depends_on", {}).items():
            assert awaited in SERVICES
            comes = "service_completed_successfully" if awaited in ONE_SHOTS else "service_healthy"
            assert how == {"condition": comes}, awaited


def test_a_stop_gives_a_process_the_time_it_takes_itself() -> None:
    assert [name for name in PROCESSES if _grace(name) <= STOP_TIMEOUT_SECONDS] == []


def _stages() -> list[list[list[str]]]:
    """The Dockerfile's stages, each a list of instructions, each a list of words."""
    lines = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    stages: list[list[list[str]]] = []
    for words in (line.split() for line in lines if line and not line.startswith("#")):
        if words[0] == "FROM":
            stages.append([])
        stages[-1].append(words)
    return stages


def test_the_image_runs_as_somebody_with_no_rights() -> None:
    users = [words[1] for words in _stages()[-1] if words[0] == "USER"]
    assert users
    assert int(users[-1]) > 0


def test_what_the_image_is_made_from_exists_and_is_let_through() -> None:
    copied = [words[1:-1] for stage in _stages() for words in stage if words[0] == "COPY"]
    sources = {word for words in copied if not words[0].startswith("--from") for word in words if word[:2] != "--"}
    ignored, *let_through = (ROOT / ".dockerignore").read_text().splitlines()[1:]
    assert ignored == "*"
    assert sources == {line[1:] for line in let_through if line.startswith("!")}
    assert [source for source in sources if not (ROOT / source).exists()] == []


def _all_that_it_requires(name: str) -> set[str]:
    needed = [Requirement(text) for text in requires(name) or ()]
    names = {canonicalize_name(one.name) for one in needed if one.marker is None or one.marker.evaluate()}
    return names.union(*(_all_that_it_requires(one) for one in names))


def test_what_builds_the_image_is_locked_with_all_that_it_requires() -> None:
    listed = re.search(r"\^\(([\w|-]+)\)==", (ROOT / "Dockerfile").read_text())
    assert listed
    assert set(listed[1].split("|")) == {"hatchling", *_all_that_it_requires("hatchling")}


@dataclass(frozen=True)
class Host:
    """This machine in the containers' place: what is where, which port stands for a container's, where to work."""

    addresses: Mapping[str, str]
    ports: Mapping[str, str]
    directory: Path

    def environment(self, name: str) -> dict[str, str]:
        """The container's environment with addresses that are true here."""
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        declared: dict[str, str] = SERVICES[name]["environment"]
        return {"PATH": path, "HOSTNAME": socket.gethostname(), **declared, **self.addresses}

    def log(self, name: str) -> Path:
        """Everything that a process wrote."""
        return self.directory / f"{name}.log"

    @contextmanager
    def running(self, name: str) -> Iterator[subprocess.Popen[bytes]]:
        """A service's process, started as its container starts it; nothing of it is left afterwards."""
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
            with suppress(ProcessLookupError, PermissionError):  # PermissionError: macOS says so of a group of zombies
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def await_health(self, name: str) -> None:
        """Asks a service's health check until it is content; fails with the end of the process's log."""
        try:
            eventually(partial(self.healthy, name), within_seconds=HEALTHY_WITHIN_SECONDS, every_seconds=0.2)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}\n{self.log(name).read_text()[-2000:]}") from error

    def healthy(self, name: str) -> bool:
        """The answer of a service's own health check."""
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
    """Kafka, PostgreSQL and Valkey run; nothing else does."""
    for name in (*PORT_VARIABLES.values(), *(one for names in settings.ADDRESSES.values() for one in names)):
        monkeypatch.delenv(name, raising=False)
    with LocalStack(tmp_path) as parts:
        addresses = {name: parts.environment[name] for names in settings.ADDRESSES.values() for name in names}
        chosen = ports.assign(tmp_path / "ports of the processes.json", dict.fromkeys(PORT_VARIABLES.values()))
        own = {name: str(port) for name, port in chosen.items()}
        own |= dict.fromkeys(("API_HOST", "ISSUER_HOST", "FLOWER_ADDRESS"), "127.0.0.1")
        yield Host(addresses | own, {port: own[name] for port, name in PORT_VARIABLES.items()}, tmp_path)


@pytest.mark.timeout(300)  # each wait below has its own bound
def test_what_the_containers_run_gets_healthy_and_ends_when_told_to(host: Host) -> None:
    with host.running("migrate") as migration:
        assert migration.wait(HEALTHY_WITHIN_SECONDS) == 0, host.log("migrate").read_text()
    with ThreadPoolExecutor() as pool:
        content = dict(zip(PROCESSES, pool.map(host.healthy, PROCESSES), strict=True))
    assert content == dict.fromkeys(PROCESSES, False), "content with a process that does not run"
    with ExitStack() as undo:
        started = {name: undo.enter_context(host.running(name)) for name in PROCESSES}
        for name in PROCESSES:
            host.await_health(name)
        for process in started.values():
            process.terminate()
        assert {name: process.wait(_grace(name)) for name, process in started.items()} == ENDS
    assert "Application shutdown complete" in host.log("api").read_text()
