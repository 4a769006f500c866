"""Derives the active alerts from observations of the system, by the rules of `ops/prometheus/rules.yml`.

One fault has many effects: without PostgreSQL the issuer decides nothing, the sweep fails and requests wait. So a rule
leaves out an effect while its cause is present, and for some time after it. The rules go from the parts to what depends
on them, and each one sees which faults those before it found.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import NamedTuple

from service.domain.system_alerts import AlertName
from service.domain.system_observation import History, IssuerObservation, Observation, Part

#: a part that takes longer for its reads is slow
_SLOW_READ_SECONDS = 0.3
#: the same for the mean write of a batch, in so many last seconds
_SLOW_WRITE_SECONDS, _WRITE_WINDOW_SECONDS = 1.0, 15.0
_STUCK_SECONDS = 10.0
#: when Redis is back, every issuer has published its health again within this time
_PUBLISHED_SECONDS = 10.0
_STALE_SWEEP_SECONDS = 7.0
#: Redis forgets the last sweep after so long
_FORGOTTEN_SWEEP_SECONDS = 60.0
#: more messages mean that no worker takes them: beat sends one every second
_MANY_MESSAGES = 3
_MAX_WORK_AGE_SECONDS = 60.0
#: a notice that waits for longer was not delivered at the first attempt
_MAX_NOTICE_AGE_SECONDS = 3.0
_MAX_UNAVAILABLE_SHARE = 0.05
#: what depends on a part recovers within this time after it; a line that grew meanwhile takes longer
_RECOVERY_SECONDS, _BACKLOG_SECONDS = 30.0, 120.0
_PART_NAMES = {Part.POSTGRESQL: "PostgreSQL", Part.REDIS: "Redis"}

_DATABASE = (AlertName.DATABASE_DOWN, AlertName.DATABASE_SLOW)
_ISSUER = (AlertName.ISSUER_DOWN, AlertName.ISSUER_FROZEN)
_SWEEP_CAUSES = (*_DATABASE, AlertName.REDIS_DOWN, AlertName.BROKER_DOWN, AlertName.WRITES_REFUSED)
_UNDECIDED_CAUSES = (*_DATABASE, AlertName.KAFKA_DOWN, AlertName.WRITES_REFUSED, *_ISSUER)
_FAULTS = frozenset(
    {*_SWEEP_CAUSES, *_UNDECIDED_CAUSES}
    | {AlertName.SWEEP_STALE, AlertName.WORKER_DOWN, AlertName.BEAT_DOWN, AlertName.WEBHOOK_FAILING}
)
#: an alert of the service -> its name here
_SERVICE_ALERTS = {
    "dead_letters": AlertName.DEAD_LETTERS,
    "topic": AlertName.TOPIC_REPLACED,
    "key_missing": AlertName.KEY_MISSING,
    "key_ended": AlertName.KEY_ENDED,
    "unverified_ids": AlertName.UNVERIFIED_IDS,
}
#: how long a fault must last until its alert is active; the others have waited long enough when they are found
_DELAY_SECONDS: Mapping[AlertName, float] = {
    **dict.fromkeys((*_DATABASE, AlertName.WRITES_REFUSED, AlertName.KAFKA_DOWN, AlertName.REDIS_DOWN), 6.0),
    **dict.fromkeys((AlertName.BROKER_DOWN, AlertName.ISSUER_DOWN, AlertName.BACKLOG_FULL), 6.0),
    AlertName.ISSUER_FROZEN: 3.0,
    AlertName.REQUESTS_UNAVAILABLE: 15.0,
    **dict.fromkeys((AlertName.SWEEP_STALE, AlertName.WORK_STUCK), 30.0),
}


class Problem(NamedTuple):
    """What a rule found."""

    #: a sentence in which `{}` stands for how long it lasts
    text: str
    #: the part's own words
    reason: str | None = None
    #: since its beginning, where that is known without having seen it
    age_seconds: float = 0.0
    #: the part or the kind of work that it is about
    subject: str = ""


class ActiveProblem(NamedTuple):
    """A problem that has lasted long enough to be an alert."""

    name: AlertName
    problem: Problem
    #: monotonic seconds
    since: float


class AlertRules:
    """Applies the rules to one observation after another, and remembers what they found."""

    def __init__(self) -> None:
        self._history = History(kept_seconds=60.0)
        #: what the last observation has, and the monotonic time at which each was first found
        self._found: dict[AlertName, tuple[Problem, float]] = {}
        self._observed_at = 0.0

    def observe(self, now: Observation) -> None:
        """Apply all rules."""
        self._history.add(now)
        found: dict[AlertName, tuple[Problem, float]] = {}
        for name, rule in _RULES.items():
            if problem := rule(_Situation(now, self._history, found.keys())):
                self._history.mark_present(name)
                found[name] = problem, self._found[name][1] if name in self._found else now.at
        self._found, self._observed_at = found, now.at

    def active(self) -> Iterator[ActiveProblem]:
        """Yield the problems that had lasted long enough at the last observation, causes first."""
        for name, (problem, found_at) in self._found.items():
            explained = name is AlertName.SWEEP_STALE and self._found.keys() & {
                AlertName.WORKER_DOWN,
                AlertName.BEAT_DOWN,
            }
            if not explained and self._observed_at - found_at >= _DELAY_SECONDS.get(name, 0.0):
                yield ActiveProblem(name, problem, min(found_at, self._observed_at - problem.age_seconds))


class _Situation(NamedTuple):
    """What a rule looks at."""

    now: Observation
    history: History
    #: the faults that the rules before this one found
    found: Collection[AlertName]

    def follows(self, causes: Collection[AlertName], within_seconds: float) -> bool:
        """Return whether one of the causes is or was present."""
        return self.history.was_present(causes, within_seconds)


Rule = Callable[[_Situation], Problem | None]


def _database_down(at: _Situation) -> Problem | None:
    if at.now.available.get(Part.POSTGRESQL) is not False:
        return None
    return Problem("PostgreSQL has not answered for {}", at.now.reasons.get(Part.POSTGRESQL))


def _redis_down(at: _Situation) -> Problem | None:
    if at.now.available.get(Part.REDIS) is not False:
        return None
    return Problem("Redis has not answered for {}", at.now.reasons.get(Part.REDIS))


def _broker_down(at: _Situation) -> Problem | None:
    """Find it by the issuers. The gate and the broker may be one server: then it is the gate that is missed first."""
    if at.now.available.get(Part.BROKER) is not False or AlertName.REDIS_DOWN in at.found:
        return None
    return Problem("Celery's broker has not answered the issuer for {}", at.now.reasons.get(Part.BROKER))


def _kafka_down(at: _Situation) -> Problem | None:
    if at.now.available.get(Part.KAFKA) is not False and at.now.ready.get(Part.KAFKA) is not False:
        return None
    return Problem("Kafka has not answered or not acknowledged for {}", at.now.reasons.get(Part.KAFKA))


def _database_slow(at: _Situation) -> Problem | None:
    if AlertName.DATABASE_DOWN in at.found:
        return None
    read = at.now.database_read_seconds
    if read is not None and read > _SLOW_READ_SECONDS:
        return Problem("PostgreSQL has answered slowly for {}", f"the last reads took {read:.1f} s")
    writes = at.history.increase(lambda seen: _total(seen, lambda issuer: issuer.writes), _WRITE_WINDOW_SECONDS)
    seconds = at.history.increase(lambda seen: _total(seen, lambda issuer: issuer.write_seconds), _WRITE_WINDOW_SECONDS)
    if writes and seconds / writes > _SLOW_WRITE_SECONDS:
        return Problem("PostgreSQL has answered slowly for {}", f"the write of a batch takes {seconds / writes:.1f} s")
    return None


def _total(seen: Observation, count: Callable[[IssuerObservation], float]) -> float | None:
    return None if seen.issuers is None else sum(map(count, seen.issuers))


def _writes_refused(at: _Situation) -> Problem | None:
    """Find a full disk, full memory, a replica that only reads. A slow database misses the time limit of the check."""
    if AlertName.DATABASE_SLOW in at.found:
        return None
    for part, name in _PART_NAMES.items():
        if at.now.ready.get(part) is False and at.now.available.get(part) is True:
            text = f"{name} has answered reads and has not done what accepts need for {{}}"
            return Problem(text, at.now.reasons.get(part), subject=name)
    return None


def _issuer_frozen(at: _Situation) -> Problem | None:
    """Find an issuer that is there and publishes nothing, or whose loop is stuck.

    The connections of a process that has ended are closed; those of one that is frozen are not. While PostgreSQL or
    Kafka is away the loop waits for them.
    """
    if at.now.issuers is None or at.follows((AlertName.REDIS_DOWN,), _PUBLISHED_SECONDS):
        return None
    if fresh := _fresh(at.now):
        stuck_seconds = min(issuer.iteration_age_seconds + issuer.age_seconds for issuer in fresh)
        if stuck_seconds > _STUCK_SECONDS and not at.follows((*_DATABASE, AlertName.KAFKA_DOWN), _RECOVERY_SECONDS):
            return Problem("The issuer's loop has made no progress for {}", age_seconds=stuck_seconds)
        return None
    if not at.now.issuer_connections:
        return None
    silent_seconds = min((issuer.age_seconds for issuer in at.now.issuers), default=0.0)
    text = "The issuer has done nothing for {}, and its process is connected to PostgreSQL"
    return Problem(text, age_seconds=silent_seconds)


def _issuer_down(at: _Situation) -> Problem | None:
    if at.now.issuers is None or at.follows((AlertName.REDIS_DOWN,), _PUBLISHED_SECONDS):
        return None
    if _fresh(at.now) or AlertName.ISSUER_FROZEN in at.found:
        return None
    silent_seconds = min((issuer.age_seconds for issuer in at.now.issuers), default=0.0)
    return Problem("No issuer has run for {}", age_seconds=silent_seconds)


def _fresh(seen: Observation) -> list[IssuerObservation]:
    return [issuer for issuer in seen.issuers or () if issuer.is_fresh]


def _sweep_stale(at: _Situation) -> Problem | None:
    """Find that the sweep does not run: beat sends it every second, and a worker runs it."""
    if at.now.available.get(Part.REDIS) is not True or at.follows(_SWEEP_CAUSES, _RECOVERY_SECONDS):
        return None
    age = _sweep_age_seconds(at.now)
    if age <= _STALE_SWEEP_SECONDS:
        return None
    return Problem("The sweep has not run for {}", "the lengths of Celery's queues are not known", age)


def _sweep_age_seconds(seen: Observation) -> float:
    return _FORGOTTEN_SWEEP_SECONDS if seen.sweep_age_seconds is None else seen.sweep_age_seconds


def _worker_down(at: _Situation) -> Problem | None:
    waiting = at.now.maintenance_messages
    if AlertName.SWEEP_STALE not in at.found or waiting is None or waiting <= _MANY_MESSAGES:
        return None
    reason = f"{waiting:.0f} messages wait in the queue maintenance"
    return Problem("No Celery worker has taken a message for {}", reason, _sweep_age_seconds(at.now))


def _beat_down(at: _Situation) -> Problem | None:
    waiting = at.now.maintenance_messages
    if AlertName.SWEEP_STALE not in at.found or waiting is None or waiting > _MANY_MESSAGES:
        return None
    reason = "no message waits in the queue maintenance, and no worker has run the sweep"
    return Problem("Celery beat has sent nothing for {}", reason, _sweep_age_seconds(at.now))


def _webhook_failing(at: _Situation) -> Problem | None:
    """Find that notices wait, and that several POSTs failed without one that was accepted in between."""
    age = at.now.work_age_seconds.get("notify", 0.0)
    rejected, unreachable = (at.history.increase(_attempts(outcome), 30.0) for outcome in ("rejected", "unreachable"))
    if (
        rejected + unreachable <= 1
        or age <= _MAX_NOTICE_AGE_SECONDS
        or at.history.increase(_attempts("accepted"), 10.0)
    ):
        return None
    reason = f"of the POSTs in the last 30 s it rejected {rejected:.0f}, and {unreachable:.0f} got no answer in time"
    return Problem("The webhook's receiver has accepted no notice for {}", reason, age)


def _attempts(outcome: str) -> Callable[[Observation], float | None]:
    return lambda seen: seen.webhook_attempts.get(outcome)


def _undecided(at: _Situation) -> Problem | None:
    why = at.now.service_alerts.get("undecided")
    if not why or at.follows(_UNDECIDED_CAUSES, _BACKLOG_SECONDS):
        return None
    own = sorted({reason for issuer in _fresh(at.now) for reason in issuer.reasons})
    return Problem("This has been so for {}", "; the issuer is not ready: ".join([why, *own]))


def _service_alert(alert: str) -> Rule:
    def rule(at: _Situation) -> Problem | None:
        why = at.now.service_alerts.get(alert)
        return Problem("This has been so for {}", why) if why else None

    return rule


def _proof_failed(at: _Situation) -> Problem | None:
    if at.now.proof_ok is not False:
        return None
    return Problem("The proof that found a broken promise ended {} ago", age_seconds=at.now.proof_age_seconds)


def _backlog_full(at: _Situation) -> Problem | None:
    refused = at.history.increase(_responses("backlog_full"), 30.0)
    if not refused or at.follows((*_DATABASE, *_ISSUER, AlertName.WRITES_REFUSED), _BACKLOG_SECONDS):
        return None
    return Problem("The line has been full for {}", f"{refused:.0f} requests got 503 in the last 30 s")


def _requests_unavailable(at: _Situation) -> Problem | None:
    unavailable = at.history.increase(_responses("unavailable"), 60.0)
    responses = at.history.increase(lambda seen: sum(seen.responses.values()), 60.0)
    if unavailable <= _MAX_UNAVAILABLE_SHARE * responses or at.follows(_FAULTS, _BACKLOG_SECONDS):
        return None
    reason = f"{unavailable / responses:.0%} of the requests of the last minute, and no part is away"
    return Problem("Requests have got 503 for {}", reason)


def _responses(code: str) -> Callable[[Observation], float | None]:
    return lambda seen: seen.responses.get(code, 0.0)


def _work_stuck(at: _Situation) -> Problem | None:
    stuck = {kind: age for kind, age in at.now.work_age_seconds.items() if age > _MAX_WORK_AGE_SECONDS}
    if not stuck or at.follows(_FAULTS, _BACKLOG_SECONDS):
        return None
    kinds = " and ".join(sorted(stuck))
    return Problem(f"Work of kind {kinds} has waited for {{}}", age_seconds=max(stuck.values()), subject=kinds)


_RULES: Mapping[AlertName, Rule] = {
    AlertName.DATABASE_DOWN: _database_down,
    AlertName.REDIS_DOWN: _redis_down,
    AlertName.BROKER_DOWN: _broker_down,
    AlertName.KAFKA_DOWN: _kafka_down,
    AlertName.DATABASE_SLOW: _database_slow,
    AlertName.WRITES_REFUSED: _writes_refused,
    AlertName.ISSUER_FROZEN: _issuer_frozen,
    AlertName.ISSUER_DOWN: _issuer_down,
    AlertName.SWEEP_STALE: _sweep_stale,
    AlertName.WORKER_DOWN: _worker_down,
    AlertName.BEAT_DOWN: _beat_down,
    AlertName.WEBHOOK_FAILING: _webhook_failing,
    AlertName.UNDECIDED: _undecided,
    **{name: _service_alert(alert) for alert, name in _SERVICE_ALERTS.items()},
    AlertName.PROOF_FAILED: _proof_failed,
    AlertName.BACKLOG_FULL: _backlog_full,
    AlertName.REQUESTS_UNAVAILABLE: _requests_unavailable,
    AlertName.WORK_STUCK: _work_stuck,
}
