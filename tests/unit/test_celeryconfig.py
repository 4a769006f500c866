"""Celery's and Flower's settings: what must fit together so that nothing vanishes or runs twice at once."""

import os
import runpy
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import certifi
import pytest
from billiard import pool
from celery import Celery
from celery.events.state import Task as EventTask
from flower.options import default_options
from kombu.transport import confluentkafka
from kombu.utils.url import parse_url

from service.config.redis_options import tls_options
from service.gate.client import build_client
from service.store.engine import STATEMENT_SECONDS
from tests.unit import facts
from tests.unit.conftest import Facts
from workers import celery
from workers.queues import BeatEntry, Queue, Task
from workers.resources import LEASE_SECONDS, WEBHOOK_TIMEOUT_SECONDS
from workers.tasks.notify import retry_delay

ROOT = Path(__file__).parents[2]
#: in a process of its own, as reading a task configures the application that holds it
_PRINT_TASKS_WITHOUT_EVENTS = """
from workers.celery import app
app.loader.import_default_modules()
print(*sorted(task.name for task in app.tasks.values() if not task.send_events))
"""
OVER_KAFKA = {"CELERY_BROKER_URL": "confluentkafka://127.0.0.1:9"}


@pytest.fixture(scope="module")
def conf() -> dict[str, Any]:
    """Return Celery's settings over Redis."""
    return _read("celeryconfig.py", facts.ENVIRONMENT)


@pytest.fixture(scope="module")
def over_kafka() -> dict[str, Any]:
    """Return Celery's settings over Kafka."""
    return _read("celeryconfig.py", facts.ENVIRONMENT | OVER_KAFKA)


def _read(file: str, environment: dict[str, str]) -> dict[str, Any]:
    """Return the file's names, read as Celery reads them, without leaving a module behind."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        return runpy.run_path(str(ROOT / file))


def test_every_task_is_registered_and_no_other(import_facts: Facts) -> None:
    """The list of tasks is closed."""
    assert import_facts["celery"]["tasks"] == sorted(Task)


def test_every_task_goes_to_its_own_queue(import_facts: Facts) -> None:
    """The part before the dot is the queue."""
    assert import_facts["celery"]["queues"] == {task.value: task.value.partition(".")[0] for task in Task}


def test_routes_name_only_the_queue(conf: dict[str, Any]) -> None:
    """A route through a named exchange needs bindings kept in Redis, and without them a message vanishes."""
    assert conf["task_routes"] == {task.value: {"queue": task.queue.value} for task in Task}


def test_every_queue_is_declared_and_a_misspelt_one_is_an_error(conf: dict[str, Any]) -> None:
    """The list of queues is closed."""
    assert [queue.name for queue in conf["task_queues"]] == [queue.value for queue in Queue]
    assert conf["task_create_missing_queues"] is False
    assert conf["task_default_queue"] in list(Queue)


def test_a_task_ends_before_its_lease_and_the_lease_before_the_message_comes_again(conf: dict[str, Any]) -> None:
    """A claim's lease is shorter than the visibility timeout, and no task outlives its claim."""
    visible = conf["broker_transport_options"]["visibility_timeout"]
    limits = [WEBHOOK_TIMEOUT_SECONDS, STATEMENT_SECONDS, conf["task_time_limit"], LEASE_SECONDS, visible]

    assert limits == sorted(set(limits))


def test_a_killed_workers_task_is_not_lost(conf: dict[str, Any]) -> None:
    """P7: a task is acknowledged after its work, and one whose worker was killed is delivered again."""
    assert conf["task_acks_late"] is True
    assert conf["task_retry_on_worker_lost"] is True
    assert conf["worker_prefetch_multiplier"] == 1


def test_only_json_is_accepted(conf: dict[str, Any]) -> None:
    """A pickle in the queue is refused, never loaded."""
    assert conf["accept_content"] == ["json"]
    assert conf["task_serializer"] == "json"


def test_beat_schedules_registered_tasks_that_expire(conf: dict[str, Any]) -> None:
    """P6: the sweep keeps running, and starts missed during an outage do not pile up."""
    assert {name: entry["task"] for name, entry in conf["beat_schedule"].items()} == {
        beat.value: beat.task.value for beat in BeatEntry
    }
    assert all(entry["schedule"] > 0 for entry in conf["beat_schedule"].values())
    assert all(entry["options"]["expires"] >= entry["schedule"] for entry in conf["beat_schedule"].values())


def test_a_lost_childs_task_comes_back_before_its_message_would(conf: dict[str, Any]) -> None:
    """P7: Celery's own delay, three minutes, would outlast the visibility timeout many times over."""
    assert conf["task_annotations"]["*"]["default_retry_delay"] < conf["broker_transport_options"]["visibility_timeout"]


@pytest.mark.parametrize(
    ("open_seconds", "retries", "delay"), [(0.7, 0, 0.7), (4.0, 2, 4.0), (0.7, 3, None), (4.1, 0, None), (300, 0, None)]
)
def test_a_retry_of_a_notice_does_not_wait_until_its_message_comes_again(
    conf: dict[str, Any], open_seconds: float, retries: int, delay: float | None
) -> None:
    """A receiver that asks for a longer pause is left to the sweep; the task itself takes up to three seconds."""
    assert retry_delay(open_seconds, retries) == delay
    assert delay is None or delay + 3 < conf["broker_transport_options"]["visibility_timeout"]


def test_over_kafka_every_queue_is_a_topic_of_its_own_name(over_kafka: dict[str, Any]) -> None:
    """A topic named `retry` could be another service's; every task goes to a queue that is declared."""
    names = [queue.name for queue in over_kafka["task_queues"]]

    assert names == [f"coupon.celery.{queue}" for queue in Queue]
    assert {route["queue"] for route in over_kafka["task_routes"].values()} <= set(names)
    assert over_kafka["task_default_queue"] in names


def test_each_transport_gets_only_options_it_has(conf: dict[str, Any], over_kafka: dict[str, Any]) -> None:
    """An option that a transport ignores would look as if it did something."""
    redis, kafka = (found["broker_transport_options"] for found in (conf, over_kafka))

    assert not redis.keys() & kafka.keys()
    assert {option for option in kafka if option not in (confluentkafka.__doc__ or "")} == {"polling_interval"}


def test_the_brokers_address_can_be_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Celery reads it through the settings, like every process."""
    monkeypatch.delenv("CELERY_BROKER_URL", raising=False)
    file = tmp_path / "broker"
    file.write_text("redis://:from-a-file@127.0.0.1:9/1\n")
    environment = {name: value for name, value in facts.ENVIRONMENT.items() if name != "CELERY_BROKER_URL"}

    assert _read("celeryconfig.py", environment | {"CELERY_BROKER_URL_FILE": str(file)})["broker_url"] == (
        "redis://:from-a-file@127.0.0.1:9/1"
    )


_CA = certifi.where()
_VERIFIED = {"ssl_cert_reqs": ssl.CERT_REQUIRED}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", _VERIFIED),
        (f"?ssl_ca_certs={_CA}&ssl_cert_reqs=required", {**_VERIFIED, "ssl_ca_certs": _CA}),
        ("?ssl_cert_reqs=none", {"ssl_cert_reqs": ssl.CERT_NONE}),
        ("?ssl_check_hostname=no", {**_VERIFIED, "ssl_check_hostname": False}),
        (
            "?ssl_min_version=771&ssl_include_verify_flags=VERIFY_X509_STRICT",
            {**_VERIFIED, "ssl_min_version": 771, "ssl_include_verify_flags": [ssl.VerifyFlags.VERIFY_X509_STRICT]},
        ),
    ],
    ids=["the system's CAs", "a CA", "any certificate", "any name", "strict"],
)
def test_the_brokers_certificate_is_verified(options: str, expected: dict[str, Any]) -> None:
    """As the gate's is, unless an option says otherwise. By kombu's default whoever is between reads the password."""
    url = f"rediss://me:mine@127.0.0.1:9/1{options}"
    found = _read("celeryconfig.py", facts.ENVIRONMENT | {"CELERY_BROKER_URL": url})
    app = Celery("tests", set_as_current=False)
    app.conf.update(broker_url=found["broker_url"], broker_use_ssl=found["broker_use_ssl"])

    assert app.connection_for_write().ssl == expected
    assert found["broker_use_ssl"] == expected  # what Flower's own client reads
    with build_client(url) as gate:
        assert tls_options(url).items() <= gate.get_connection_kwargs().items()


def test_celery_asks_every_sentinel_for_the_primary(monkeypatch: pytest.MonkeyPatch) -> None:
    """Celery itself prefers the variable, whose form it does not know."""
    url = f"rediss+sentinel://me:p%40w@one:1,[::1]/3?master_name=shop&sentinel_password=s%40p&ssl_ca_certs={_CA}"
    found = _read("celeryconfig.py", facts.ENVIRONMENT | {"CELERY_BROKER_URL": url})
    monkeypatch.setenv("CELERY_BROKER_URL", url)
    app = Celery("tests", set_as_current=False)
    app.conf.update({name: value for name, value in found.items() if name.startswith("broker_")})
    used = app.connection_for_write()
    sentinel = found["broker_transport_options"]["sentinel_kwargs"]

    login = {"transport": "sentinel", "userid": "me", "password": "p@w", "virtual_host": "3"}
    assert [parse_url(one) for one in used.alt] == [
        {**login, "hostname": "one", "port": 1},
        {**login, "hostname": "::1", "port": 26379},
    ]
    assert found["broker_transport_options"]["master_name"] == "shop"
    assert (used.ssl["ssl_cert_reqs"], used.ssl["ssl_ca_certs"]) == (ssl.CERT_REQUIRED, _CA)
    assert (sentinel["ssl"], sentinel["ssl_ca_certs"], sentinel["password"]) == (True, _CA, "s@p")
    assert app.connection_for_read().alt == used.alt
    assert "s@p" not in app.bugreport()


def test_without_tls_nothing_is_verified(conf: dict[str, Any]) -> None:
    assert conf["broker_use_ssl"] is False


def test_over_kafka_kombu_connects_as_every_other_client() -> None:
    login = {
        "KAFKA_SECURITY_PROTOCOL": "sasl_plaintext",
        "KAFKA_SASL_MECHANISM": "PLAIN",
        "KAFKA_SASL_USERNAME": "me",
        "KAFKA_SASL_PASSWORD": "mine",
    }
    found = _read("celeryconfig.py", facts.ENVIRONMENT | OVER_KAFKA | login)
    used = found["broker_transport_options"]["kafka_common_config"]

    assert (used["security.protocol"], used["sasl.username"], used["sasl.password"]) == ("sasl_plaintext", "me", "mine")
    assert "bootstrap.servers" not in used


def test_a_producer_over_kafka_has_a_short_timeout(over_kafka: dict[str, Any]) -> None:
    """By default librdkafka tries for five minutes, in which the after-commit thread would send nothing else."""
    assert over_kafka["broker_transport_options"]["kafka_producer_config"]["message.timeout.ms"] <= 2_000


def test_task_events_are_sent_where_flower_can_receive_them(conf: dict[str, Any], over_kafka: dict[str, Any]) -> None:
    """Kafka has no fanout, which Flower needs."""
    assert (conf["worker_send_task_events"], over_kafka["worker_send_task_events"]) == (True, False)


def test_no_task_that_beat_starts_fills_flowers_pages(conf: dict[str, Any]) -> None:
    """The sweep runs every second: neither its start nor its sending is shown, or it would hide every other task."""
    command = [sys.executable, "-c", _PRINT_TASKS_WITHOUT_EVENTS]
    environment = {**os.environ, **facts.ENVIRONMENT}
    output = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, check=True, text=True).stdout

    assert output.split() == sorted(beat.task for beat in BeatEntry)
    assert conf["task_send_sent_event"] is False


_LOGIN = "me:sixteen characters"


def _flower(address: str, *logins: str, **variables: str) -> dict[str, Any]:
    """Return Flower's settings for an address and logins, which Flower itself reads from options and variables."""
    options = default_options.mockable()
    with mock.patch.object(options, "address", address), mock.patch.object(options, "basic_auth", list(logins)):
        return _read("flowerconfig.py", facts.ENVIRONMENT | variables)


@pytest.mark.parametrize("address", ["", "127.0.0.1", "::1", "localhost"])
def test_flower_displays_only_and_needs_no_credentials_on_loopback(address: str) -> None:
    """Without credentials its API refuses everybody, whatever it displays."""
    assert _flower(address)["read_only"] == "true"
    assert _flower(address)["address"] == (address or "127.0.0.1")
    assert _flower(address, FLOWER_READ_ONLY="false")["read_only"] == "false"


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "10.0.0.1", "flower.example"])
@pytest.mark.parametrize("logins", [[], [""], ["me:"], ["me:short"], [":sixteen characters"], [_LOGIN, "me:short"]])
def test_flower_does_not_start_beyond_loopback_without_credentials(
    address: str, logins: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        _flower(address, *logins)
    assert f"FLOWER_ADDRESS: others than you can reach {address}: set FLOWER_BASIC_AUTH=" in capsys.readouterr().err
    assert _flower(address, _LOGIN)["address"] == address


def test_flower_takes_its_credentials_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Flower applies the name `basic_auth` of its configuration; both variables at once are a fault."""
    file = tmp_path / "login"
    file.write_text(f"{_LOGIN}\n")

    assert _flower("0.0.0.0", FLOWER_BASIC_AUTH_FILE=str(file))["basic_auth"] == [_LOGIN]
    with pytest.raises(SystemExit):
        _flower("", _LOGIN, FLOWER_BASIC_AUTH_FILE=str(file))
    assert "FLOWER_BASIC_AUTH: is set, and FLOWER_BASIC_AUTH_FILE as well" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        _flower("", FLOWER_BASIC_AUTH_FILE=f"{file}-absent")
    assert f"FLOWER_BASIC_AUTH_FILE={file}-absent: the file cannot be read: No such file" in capsys.readouterr().err


def test_flower_does_not_start_with_an_api_for_everybody(capsys: pytest.CaptureFixture[str]) -> None:
    """It would let every web site read and call it, also on loopback."""
    with pytest.raises(SystemExit):
        _flower("127.0.0.1", FLOWER_UNAUTHENTICATED_API="true")
    assert "FLOWER_UNAUTHENTICATED_API: every web page that you open could call Flower" in capsys.readouterr().err
    _flower("127.0.0.1", _LOGIN, FLOWER_UNAUTHENTICATED_API="true")


def test_flower_does_not_start_where_it_would_see_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Its pages would be empty; it exits with the reason instead."""
    assert _read("flowerconfig.py", facts.ENVIRONMENT)["address"] == "127.0.0.1"
    with pytest.raises(SystemExit):
        _read("flowerconfig.py", facts.ENVIRONMENT | OVER_KAFKA)
    assert "CELERY_BROKER_URL: Flower needs Celery events" in capsys.readouterr().err


def test_flower_keeps_its_state_in_a_file_if_it_is_given_one(tmp_path: Path) -> None:
    """And saves it often enough for a Flower that is killed."""
    tmp_path.chmod(0o755)
    kept, forgotten = _flower("", FLOWER_DB=str(tmp_path / "state")), _flower("", FLOWER_DB="")

    assert (kept["persistent"], kept["db"]) == ("true", str(tmp_path / "state"))
    assert 0 < int(kept["state_save_interval"]) <= 60_000
    assert forgotten["persistent"] == "false"


@pytest.mark.parametrize("name", ["state_save_interval", "max_tasks", "purge_offline_workers"])
def test_what_flower_keeps_can_be_set(name: str) -> None:
    assert _flower("", **{f"FLOWER_{name.upper()}": "17"})[name] == "17"
    assert int(_flower("")[name]) > 0


def test_flower_does_not_start_with_a_state_that_others_may_replace(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file is a pickle, which can run anything."""
    tmp_path.chmod(0o777)
    with pytest.raises(SystemExit):
        _flower("", FLOWER_DB=str(tmp_path / "state"))
    assert f"FLOWER_DB: others may replace the files in {tmp_path}" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        _flower("", FLOWER_DB=str(tmp_path / "absent" / "state"))
    assert f"FLOWER_DB: {tmp_path}/absent is not a directory" in capsys.readouterr().err


def test_flower_shows_the_description_and_the_result_of_a_task() -> None:
    """The columns have what a person looks for, without the quotes and brackets of Python values."""
    flower = _read("flowerconfig.py", facts.ENVIRONMENT)
    columns, format_task = flower["tasks_columns"].split(","), flower["format_task"]
    args = "3 requests of coupon 42 (partition 1, offsets 5-9), attempt 2 of 3"

    done = format_task(EventTask(args=args, kwargs="{}", state="SUCCESS", result="'none failed again'"))
    failed = format_task(EventTask(args="()", state="RETRY", exception="RequestsFailedAgain('1 of 3')", result=None))
    running = format_task(EventTask(args=args, state="STARTED"))

    assert columns[:5] == ["name", "args", "kwargs", "state", "result"]
    assert (done.args, done.kwargs, done.result) == (args, "", "none failed again")
    assert (failed.args, failed.result) == ("", "RequestsFailedAgain('1 of 3')")
    assert (running.args, running.result) == (args, "")


def test_a_child_waits_for_its_parent_to_count_for_three_seconds_at_most() -> None:
    """Billiard's own limit would make a worker take thirty seconds to stop."""
    looks, pause = pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT, pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_INTERVAL

    assert celery.app
    assert looks * pause <= 3
    assert "GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT" in pool.Worker._ensure_messages_consumed.__code__.co_names
