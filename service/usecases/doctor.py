"""Examines a set-up from outside, part by part: what is wrong, and what to do about it.

The checks are those that processes make at their start and for their readiness, and some that need a look from outside.
"""

import resource
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import urlsplit

from sqlalchemy import Engine

from service.clock import now_ms
from service.config import Settings
from service.domain.errors import CouponsError, Misconfigured, NotPermitted, Unavailable
from service.domain.finding import Finding, Part, Verdict
from service.domain.system_observation import MAX_SWEEP_AGE_SECONDS
from service.gate.gate_admin import GateAdmin
from service.gate.server_check import RedisServerCheck
from service.limits import MAX_CONNECTIONS
from service.server.connection_guard import RESERVED_FILES
from service.store import checkpoints, schema
from service.store.engine import database_now, in_transaction
from service.stream import log_reader, topics
from service.stream.partition_holders import GroupReader
from service.stream.readiness import LogReadiness
from service.stream.topics import Topic
from service.timestamps import to_milliseconds
from service.usecases.key_register import KeyRegister
from service.usecases.late_partitions import LatePartitionExplainer
from service.usecases.log_watch import LogWatch
from service.usecases.lookup import CLOCK_SKEW_ALLOWANCE_MS
from service.usecases.undecided import STALLED_SECONDS

_TIMEOUT_SECONDS = 3.0
#: two clocks that differ from this machine's by less differ from each other by less than what look-ups allow for
_MAX_SKEW_MS = CLOCK_SKEW_ALLOWANCE_MS // 2


class Doctor:
    """Examines the parts that the settings name; every call blocks."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        gate_admin: GateAdmin,
        gate_server: RedisServerCheck,
        broker_server: RedisServerCheck | None,
        key_register: KeyRegister,
    ) -> None:
        """`broker_server` is Celery's broker; None: it is Kafka."""
        self._settings = settings
        self._engine = engine
        self._gate_admin = gate_admin
        self._gate_server = gate_server
        self._broker_server = broker_server
        self._key_register = key_register
        self._admin = topics.build_admin(settings)

    def examine(self) -> Iterator[Finding]:
        """Yield at least one finding for each part, in the order of Part; what a failed part hides is skipped."""
        verdicts = {Part.SETTINGS: Verdict.OK}
        yield Finding(Part.SETTINGS, Verdict.OK, "every setting is present and well formed")
        for part, check in self._checks().items():
            missing = next((needed for needed in check.needs if verdicts[needed] in _HIDING), None)
            findings = (
                [Finding(part, Verdict.SKIPPED, f"it needs the part {missing}")] if missing else [*_run(part, check)]
            )
            verdicts[part] = max((one.verdict for one in findings), key=[*Verdict].index)
            yield from findings

    def _checks(self) -> Mapping[Part, "_Check"]:
        return {
            Part.FILES: _Check(self._files, (), ""),
            Part.POSTGRESQL: _Check(self._postgresql, (), "start PostgreSQL, or correct DATABASE_URL"),
            Part.SCHEMA: _Check(self._schema, (Part.POSTGRESQL,), ""),
            Part.RIGHTS: _Check(self._rights, (Part.SCHEMA,), "run `coupons migrate` with MIGRATE_DATABASE_URL"),
            Part.KEYS: _Check(self._keys, (Part.RIGHTS,), ""),
            Part.KAFKA: _Check(self._kafka, (), "start Kafka, or correct KAFKA_BOOTSTRAP_SERVERS"),
            Part.TOPICS: _Check(self._topics, (Part.KAFKA,), "see docs/deployment.md"),
            Part.LOG: _Check(self._log, (Part.KAFKA, Part.RIGHTS), "see docs/recovery.md"),
            Part.REDIS: _Check(self._redis, (), "start Redis, or correct REDIS_URL"),
            Part.BROKER: _Check(
                self._broker, (), "start Celery's broker, make room in it, or correct CELERY_BROKER_URL"
            ),
            Part.CLOCKS: _Check(self._clocks, (), "start a time service, such as chrony, on that machine"),
            Part.ISSUER: _Check(self._issuer, (Part.LOG,), "start an issuer: python -m workers.issuer"),
            Part.WORKER: _Check(self._worker, (Part.REDIS, Part.BROKER), "start a Celery worker and beat"),
            Part.ADDRESSES: _Check(self._addresses, (), "correct the URL, or start the server"),
        }

    def _files(self) -> Iterator["_Problem | str"]:
        """The limit of this shell; a service manager may give the API another one."""
        _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = max(hard_limit - RESERVED_FILES, 0)
        if hard_limit != resource.RLIM_INFINITY and most < MAX_CONNECTIONS // 2:
            yield _Problem(
                f"a process may open {hard_limit} files here, so an API has at most {most} connections"
                f" instead of {MAX_CONNECTIONS}",
                "raise the hard limit of the API (LimitNOFILE of systemd, ulimits of Docker)",
                Verdict.WARNING,
            )
        yield f"a process may open {hard_limit} files"

    def _postgresql(self) -> Iterator["_Problem | str"]:
        try:
            with in_transaction(self._engine) as tx:
                yield schema.describe_session(tx)
        except Misconfigured:
            raise
        except Unavailable as error:
            # libpq reports neither SQLSTATE nor class of an error during the connection
            known = (remedy for words, remedy in _CONNECTION_REMEDIES.items() if words in str(error))
            # the rest of the text is libpq's advice
            found = str(error).partition("\n")[0]
            yield _Problem(found, next(known, "start PostgreSQL, or correct host and port in DATABASE_URL"))

    def _schema(self) -> Iterator["_Problem | str"]:
        with in_transaction(self._engine) as tx:
            schema.require_current(tx)
        yield "its revision is that of this version"

    def _rights(self) -> Iterator["_Problem | str"]:
        with in_transaction(self._engine) as tx:
            missing = schema.missing_rights(tx)
            if missing:
                yield _Problem(f"the role of DATABASE_URL lacks {', '.join(missing)}")
                return
            schema.require_writable(tx, "doctor")
        yield "the role may do what the service does, and the server accepts writes"

    def _keys(self) -> Iterator["_Problem | str"]:
        with in_transaction(self._engine) as tx:
            registered = self._key_register.compare(tx)
        if self._key_register.fault:
            yield _Problem(self._key_register.fault)
        if self._key_register.alert:
            yield _Problem(self._key_register.alert, verdict=Verdict.WARNING)
        yield f"REQUEST_ID_KEYS has every key that signs; registered keys: {len(registered)}"

    def _kafka(self) -> Iterator["_Problem | str"]:
        try:
            yield f"brokers of the cluster: {topics.count_brokers(self._admin, _TIMEOUT_SECONDS)}"
        except Unavailable as error:
            known = (remedy for words, remedy in _KAFKA_REMEDIES.items() if words in str(error))
            yield _Problem(str(error), next(known, None))

    def _topics(self) -> Iterator["_Problem | str"]:
        for topic in Topic:
            found = topics.find(self._admin, topic, _TIMEOUT_SECONDS)
            if found is None:
                yield _Problem(f"topic {topic} does not exist", "run `coupons migrate`")
                continue
            for fault in topics.too_few(topic, found, self._settings):
                yield _Problem(fault, "correct the setting, or extend the topic before the first sale")
            for fault in topics.too_many(topic, found, self._settings):
                yield _Problem(fault, "set TOPIC_PARTITIONS to what the topic has", Verdict.WARNING)
            try:
                for fault in topics.other_settings(self._admin, topic, self._settings):
                    yield _Problem(fault, _CHANGE_TOPIC)
            except NotPermitted as error:
                yield _Problem(str(error), "grant it, or compare these settings by hand", Verdict.WARNING)
        yield "both topics have the required settings"

    def _log(self) -> Iterator["_Problem | str"]:
        with in_transaction(self._engine) as tx:
            log, _ = checkpoints.of_open_log(tx)
        watch = LogWatch(self._settings, self._engine, log)
        watch.compare()
        if watch.fault:
            yield _Problem(watch.fault)
        LogReadiness(self._admin, self._settings.topic_min_insync_replicas).require_appendable(_TIMEOUT_SECONDS)
        yield f"the topic is the open log, number {log.id}, and accepts records"

    def _redis(self) -> Iterator["_Problem | str"]:
        version = self._gate_server.version()
        self._gate_server.require_writable()
        if fault := self._gate_server.eviction_fault():
            yield _Problem(fault, "CONFIG SET maxmemory-policy noeviction, and the same in the server's configuration")
        yield version

    def _broker(self) -> Iterator["_Problem | str"]:
        if self._broker_server is None:
            yield "Kafka, see above"
            return
        version = self._broker_server.version()
        self._broker_server.require_takes_messages()
        if fault := self._broker_server.eviction_fault():
            yield _Problem(f"{fault} (messages: the sweep sends them again)", verdict=Verdict.WARNING)
        yield version

    def _clocks(self) -> Iterator["_Problem | str"]:
        """A server that does not answer is reported elsewhere. Kafka tells no time: only its records do."""
        differences: dict[str, int] = {}
        with suppress(CouponsError), in_transaction(self._engine) as tx:
            differences["PostgreSQL"] = to_milliseconds(database_now(tx)) - now_ms()
        with suppress(CouponsError):
            differences["Redis"] = self._gate_server.clock_ms() - now_ms()
        with suppress(CouponsError):
            partitions = range(self._settings.topic_partitions)
            last_ms = log_reader.last_append_ms(self._admin, Topic.ISSUE_COUPON, partitions)
            if last_ms is not None and last_ms > now_ms():
                differences["Kafka"] = last_ms - now_ms()
        for part, difference in differences.items():
            if abs(difference) > _MAX_SKEW_MS:
                ahead = "ahead of" if difference > 0 else "behind"
                yield _Problem(f"the clock of {part} is {abs(difference) / 1000:.0f} s {ahead} this machine's")
        shown = (f"{part} {difference:+d} ms" for part, difference in differences.items())
        yield f"differences from this machine: {', '.join(shown) or 'not known'}"

    def _issuer(self) -> Iterator["_Problem | str"]:
        holders = GroupReader(self._settings).holders()
        with in_transaction(self._engine) as tx:
            log, _ = checkpoints.of_open_log(tx)
            progress = checkpoints.progress(tx, log.id, self._settings.topic_partitions)
        held = {at for at, holder in holders.by_partition.items() if holder.is_issuer}
        ages = {at: known.watermark_age_seconds for at, known in progress.items()}
        late = [at for at, age in ages.items() if at not in held or age is None or age > STALLED_SECONDS]
        reasons: dict[tuple[Verdict, str], list[int]] = {}
        explained = LatePartitionExplainer(self._settings).explain(late, progress) if late else {}
        for at, one in explained.items():
            verdict = Verdict.WARNING if one.holder is not None and one.holder.is_issuer else Verdict.FAILED
            reasons.setdefault((verdict, one.reason), []).append(at)
        for (verdict, why), partitions in reasons.items():
            yield _Problem(f"undecided partitions {', '.join(map(str, partitions))}: {why}", verdict=verdict)
        yield f"issuers decide all {len(progress)} partitions"

    def _worker(self) -> Iterator["_Problem | str"]:
        seconds = self._gate_admin.seconds_since_sweep()
        if seconds is None or seconds > MAX_SWEEP_AGE_SECONDS:
            ago = "in the last minute, or never" if seconds is None else f"for {seconds:.0f} s"
            yield _Problem(f"no worker has run the sweep {ago}, which beat sends every second")
        yield "a worker runs the sweep that beat sends"

    def _addresses(self) -> Iterator["_Problem | str"]:
        named = {"WEBHOOK_URL": self._settings.webhook_url, "JWT_JWKS_URL": self._settings.jwt_jwks_url}
        for name, url in named.items():
            parts = urlsplit(url)
            if url:
                port = parts.port or (443 if parts.scheme == "https" else 80)
                try:
                    socket.create_connection((parts.hostname or "", port), _TIMEOUT_SECONDS).close()
                except OSError as error:
                    yield _Problem(f"{name}: {parts.hostname}:{port} cannot be reached: {error}")
        yield ", ".join(name for name, url in named.items() if url) or "there are none"


class _Problem(NamedTuple):
    """What a check found wrong."""

    found: str
    #: None: the remedy of the check
    remedy: str | None = None
    verdict: Verdict = Verdict.FAILED


class _Check(NamedTuple):
    """The check of one part: it yields problems, and at last what is well if there was none."""

    run: Callable[[], Iterator[_Problem | str]]
    #: parts without which it finds nothing
    needs: tuple[Part, ...]
    #: what to do unless the problem says otherwise
    remedy: str


#: verdicts of a part that hide what depends on it
_HIDING = (Verdict.FAILED, Verdict.SKIPPED)
#: words of Kafka's client about a connection, and what to do
_KAFKA_REMEDIES = {
    "certificate verify failed": "set KAFKA_SSL_CA to the CA that signed the brokers' certificates, and name the"
    " brokers as these do",
    "(_SSL)": "correct KAFKA_SECURITY_PROTOCOL and the settings KAFKA_SSL_*",
    "KAFKA_SECURITY_PROTOCOL": "correct KAFKA_SECURITY_PROTOCOL: this listener expects another protocol",
    "(_AUTHENTICATION)": "correct KAFKA_SASL_MECHANISM, KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD; with"
    " OAUTHBEARER: KAFKA_OAUTH_CLIENT_ID and KAFKA_OAUTH_CLIENT_SECRET",
    "authorization failed": "grant Describe on the topics: docs/own-servers.md lists what each process needs",
}
#: words of PostgreSQL's client, and what to do
_CONNECTION_REMEDIES = {
    "password": "correct the password in DATABASE_URL; deploy/roles.sql sets the roles' passwords",
    "does not exist": "correct the role and the database in DATABASE_URL; deploy/roles.sql creates them",
    "read-only": "name the primary in DATABASE_URL",
}


_CHANGE_TOPIC = "change the topic with Kafka's kafka-configs.sh, or the setting of this service"
_GRANT = "correct the user and the password, or grant the right: docs/own-servers.md lists what each one needs"


def _run(part: Part, check: _Check) -> Iterator[Finding]:
    problems = 0
    try:
        for one in check.run():
            if isinstance(one, _Problem):
                problems += 1
                yield Finding(part, one.verdict, one.found, check.remedy if one.remedy is None else one.remedy)
            elif not problems:
                yield Finding(part, Verdict.OK, one)
    except Misconfigured as error:
        yield from (Finding(part, Verdict.FAILED, fault, check.remedy) for fault in error.faults)
    except NotPermitted as error:
        yield Finding(part, Verdict.FAILED, str(error), _GRANT)
    except CouponsError as error:
        yield Finding(part, Verdict.FAILED, str(error), check.remedy)
