"""`coupons doctor` names the fault of each broken set-up, and what to do about it."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from redis import Redis
from sqlalchemy import Engine, make_url, text

from service import clock
from service.config import Settings
from service.domain.finding import Finding, Part, Verdict
from service.domain.request_id import fingerprint
from service.resources import open_doctor
from service.store import schema
from stack.local import LocalStack
from stack.settings import ISOLATED
from tests.fixtures.commands import Run
from tests.fixtures.parts import REQUEST_ID_KEYS

_AWAY = "127.0.0.1:9"
#: no issuer, worker or webhook receiver runs beside these tests
_ABSENT_HERE = {Part.ISSUER, Part.WORKER, Part.ADDRESSES}


def _findings(settings: Settings, **changes: Any) -> dict[Part, Finding]:
    """Return the worst finding of each part."""
    with open_doctor(settings.model_copy(update=changes)) as doctor:
        findings = list(doctor.examine())
    order = [*Verdict]
    return {one.part: one for one in sorted(findings, key=lambda one: order.index(one.verdict))}


def _failed(found: dict[Part, Finding]) -> dict[Part, str]:
    """Return what is said of the parts that failed, apart from those that no test starts."""
    failed = (one for part, one in found.items() if one.verdict is Verdict.FAILED and part not in _ABSENT_HERE)
    return {one.part: f"{one.found}: {one.remedy}" for one in failed}


def test_a_sound_set_up_has_no_fault(settings: Settings, log_id: int) -> None:
    """Each part is checked; what is said of those that do not run names the remedy."""
    del log_id
    found = _findings(settings)

    assert list(Part) == sorted(found, key=list(Part).index)
    assert _failed(found) == {}
    assert (
        found[Part.ISSUER].found == "undecided partitions 0, 1, 2, 3, 4, 5: held by nobody: group `coupon` has no"
        " issuer for it: start one"
    )
    assert found[Part.WORKER].found.startswith("no worker has run the sweep in the last minute, or never")
    assert found[Part.WORKER].remedy == "start a Celery worker and beat"
    assert found[Part.ADDRESSES].found.startswith("WEBHOOK_URL: 127.0.0.1:9 cannot be reached: ")


def test_another_password_of_the_database(settings: Settings) -> None:
    url = make_url(settings.database_url).set(password="another").render_as_string(hide_password=False)
    found = _findings(settings, database_url=url)

    (said,) = _failed(found).values()
    assert 'password authentication failed for user "coupons"' in said
    assert "correct the password in DATABASE_URL" in said
    assert {part for part, one in found.items() if one.verdict is Verdict.SKIPPED} >= {
        Part.SCHEMA,
        Part.RIGHTS,
        Part.LOG,
    }


def test_a_database_that_does_not_exist(settings: Settings) -> None:
    url = make_url(settings.database_url).set(database="another").render_as_string(hide_password=False)

    (said,) = _failed(_findings(settings, database_url=url)).values()

    assert 'database "another" does not exist' in said
    assert "deploy/roles.sql creates them" in said


def test_a_database_that_is_away(settings: Settings) -> None:
    (said,) = _failed(_findings(settings, database_url=f"postgresql://coupons@{_AWAY}/coupons")).values()

    assert "Connection refused" in said
    assert said.endswith("start PostgreSQL, or correct host and port in DATABASE_URL")


def test_a_database_without_a_schema(settings: Settings, fresh_database: Engine) -> None:
    url = fresh_database.url.render_as_string(hide_password=False)

    (said,) = _failed(_findings(settings, database_url=url)).values()

    assert said == "the database schema is at revision None, 0002_counting_rights is required: run `coupons migrate`: "


def test_a_schema_of_a_newer_version(settings: Settings, fresh_database: Engine) -> None:
    schema.migrate(fresh_database)
    with fresh_database.begin() as tx:
        tx.execute(text("UPDATE alembic_version SET version_num = '9999_later'"))

    (said,) = _failed(
        _findings(settings, database_url=fresh_database.url.render_as_string(hide_password=False))
    ).values()

    assert "9999_later, which this version of coupons does not have" in said
    assert "do not run `coupons migrate`" in said


def test_a_right_that_is_missing(settings: Settings, log_id: int, admin: Engine) -> None:
    """Every missing right is named, of a table or of a column."""
    del log_id
    function = "FUNCTION failing_requests(jsonb)"
    with (
        _revoked(admin, "UPDATE (state)", "requests"),
        _revoked(admin, "DELETE", "outbox"),
        _revoked(admin, "TEMPORARY", "DATABASE coupons", "PUBLIC"),
        _revoked(admin, "EXECUTE", function, "PUBLIC", "coupons"),
    ):
        (said,) = _failed(_findings(settings)).values()

    assert said == (
        "the role of DATABASE_URL lacks DELETE on outbox, UPDATE on requests (state), TEMPORARY on database coupons,"
        " EXECUTE on function failing_requests(jsonb): run `coupons migrate` with MIGRATE_DATABASE_URL"
    )
    with admin.begin() as tx:  # the migration has granted them to the role alone
        tx.execute(text(f"GRANT EXECUTE ON {function} TO PUBLIC"))
        tx.execute(text("REVOKE TEMPORARY ON DATABASE coupons FROM coupons"))
        tx.execute(text("GRANT TEMPORARY ON DATABASE coupons TO PUBLIC"))


@contextmanager
def _revoked(admin: Engine, right: str, of: str, *roles: str) -> Iterator[None]:
    """Take a right from roles, by default from the service's; afterwards the migration grants it."""
    with admin.begin() as tx:
        tx.execute(text(f"REVOKE {right} ON {of} FROM {', '.join(roles or ['coupons'])}"))
    yield
    schema.migrate(admin, "coupons")


def test_kafka_that_is_away(settings: Settings) -> None:
    found = _findings(settings, kafka_bootstrap_servers=_AWAY)

    (said,) = _failed(found).values()
    assert said.startswith("Kafka is unavailable: ")
    assert said.endswith("start Kafka, or correct KAFKA_BOOTSTRAP_SERVERS")
    assert found[Part.TOPICS] == Finding(Part.TOPICS, Verdict.SKIPPED, "it needs the part kafka")


def test_topics_that_do_not_exist(settings: Settings, log_id: int, tmp_path: Path) -> None:
    del log_id
    with LocalStack(tmp_path, ("kafka",), ISOLATED) as empty:
        failed = _failed(_findings(settings, kafka_bootstrap_servers=empty.kafka_bootstrap_servers))

    assert failed[Part.TOPICS] == "topic ISSUE_COUPON.dlt does not exist: run `coupons migrate`"


def test_topics_with_another_number_of_partitions(settings: Settings, log_id: int) -> None:
    """Fewer are a fault; more are a warning, because only records of other producers are poison on them."""
    del log_id
    fewer, more = _findings(settings, topic_partitions=7), _findings(settings, topic_partitions=5)

    said = _failed(fewer)[Part.TOPICS]
    assert "partitions (TOPIC_PARTITIONS) is 6, must be 7: correct the setting, or extend the topic" in said
    assert Part.TOPICS not in _failed(more)
    assert (more[Part.TOPICS].verdict, more[Part.TOPICS].remedy) == (
        Verdict.WARNING,
        "set TOPIC_PARTITIONS to what the topic has",
    )


def test_a_topic_that_was_created_again(settings: Settings, log_id: int, admin: Engine) -> None:
    del log_id
    with admin.begin() as tx:
        tx.execute(text("UPDATE logs SET topic_id = 'Zm9yIHRlc3RzIG9ubHkhIQ' WHERE closed_at IS NULL"))

    said = _failed(_findings(settings))[Part.LOG]

    assert "run `coupons log adopt`" in said


def test_redis_that_is_away(settings: Settings, log_id: int) -> None:
    del log_id
    (said,) = _failed(_findings(settings, redis_url=f"redis://{_AWAY}/0")).values()

    assert said.startswith("Redis is unavailable: ")
    assert said.endswith("start Redis, or correct REDIS_URL")


def test_a_broker_that_is_away(settings: Settings, log_id: int) -> None:
    """It is not said that it refuses writes, nor that the gate is away."""
    del log_id
    (said,) = _failed(_findings(settings, celery_broker_url=f"redis://{_AWAY}/1")).values()

    assert said.startswith("Celery's broker is unavailable: Error ")
    assert said.endswith("start Celery's broker, make room in it, or correct CELERY_BROKER_URL")


def test_a_redis_that_deletes_keys(settings: Settings, log_id: int, evicting_redis: Redis) -> None:
    del log_id, evicting_redis
    said = _failed(_findings(settings))[Part.REDIS]

    assert said.startswith("its maxmemory-policy is allkeys-lru, so it may delete seats: set it to noeviction")
    assert "CONFIG SET maxmemory-policy noeviction" in said


def test_a_redis_whose_memory_is_full(settings: Settings, log_id: int, full_redis: Redis) -> None:
    del log_id, full_redis

    failed = _failed(_findings(settings))

    assert "maxmemory" in failed[Part.REDIS]
    # Celery's broker is the same server here; it answers, and takes no message
    assert failed[Part.BROKER].startswith("Celery's broker is unavailable: it refuses writes: ")
    assert failed[Part.BROKER].endswith("make room in it, or correct CELERY_BROKER_URL")


def test_a_redis_user_without_a_right(settings: Settings, log_id: int, redis: Redis, limited_redis_url: str) -> None:
    del log_id
    redis.acl_setuser("limited", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-eval", "-evalsha"])

    said = _failed(_findings(settings, redis_url=limited_redis_url))[Part.REDIS]

    assert "Redis refuses a right that the service needs, so grant it: " in said
    assert said.endswith("docs/own-servers.md lists what each one needs")


def test_a_key_of_request_ids_that_is_missing(settings: Settings, log_id: int, store: Engine) -> None:
    """Ids are signed elsewhere with a key that this environment lacks, whether it has another one or not."""
    del log_id
    with store.begin() as tx:
        tx.execute(
            text("INSERT INTO request_id_keys (fingerprint, signs_since) VALUES (:name, now())"),
            {"name": fingerprint(REQUEST_ID_KEYS.encode())},
        )

    assert Part.KEYS not in _failed(_findings(settings))
    said = _failed(_findings(settings, request_id_keys=SecretStr("another-key-" * 3)))[Part.KEYS]
    assert fingerprint(REQUEST_ID_KEYS.encode()) in said
    assert "add them in the last place and restart it, see docs/key-rotation.md" in said


def test_a_clock_that_is_wrong(settings: Settings, log_id: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here it is this machine's, so every server that tells the time differs from it."""
    del log_id
    monkeypatch.setattr(clock.Shift, "by_ms", 60_000)
    with open_doctor(settings) as doctor:
        said = [one for one in doctor.examine() if one.part is Part.CLOCKS]

    assert {one.found for one in said} == {
        f"the clock of {part} is 60 s behind this machine's" for part in ("PostgreSQL", "Redis")
    }
    assert {one.remedy for one in said} == {"start a time service, such as chrony, on that machine"}


def test_the_command_names_every_faulty_setting(run: Run) -> None:
    """All at once, one line each, and nothing is connected to; the status is 1."""
    ended = run("doctor", REQUEST_ID_KEYS="", TOPIC_PARTITIONS="0", REDIS_URL="http://x")

    lines = [line.split("\t") for line in ended.stdout.splitlines()]
    assert ended.returncode == 1
    assert {tuple(line[:2]) for line in lines} == {("settings", "FAILED")}
    assert {line[2].partition(":")[0] for line in lines} == {"REQUEST_ID_KEYS", "TOPIC_PARTITIONS", "REDIS_URL"}
    assert ended.stderr == ""


def test_the_command_warns_of_a_low_limit_of_open_files(command_environment: Mapping[str, str], log_id: int) -> None:
    """JSON has the same findings."""
    del log_id
    command = f"ulimit -n 1024; exec {sys.executable} -m service.cli doctor --json"
    ended = subprocess.run(
        ["bash", "-c", command], env=command_environment, capture_output=True, text=True, timeout=60, check=False
    )

    printed = json.loads(ended.stdout)
    (files,) = [one for one in printed["findings"] if one["part"] == "open files"]
    assert (ended.returncode, printed["ok"]) == (1, False)  # no issuer runs
    assert files["verdict"] == "warning"
    assert files["found"].startswith("a process may open 1024 files here, so an API has at most 896 connections")
    assert "LimitNOFILE" in files["remedy"]
