"""Derives the active alerts from observations of the system, by the rules of `ops/prometheus/rules.yml`.

One fault has many effects: without PostgreSQL the issuer decides nothing, the sweep fails and requests wait. So a rule
leaves out an effect while its cause is present, and for some time after it. The rules go from the parts to what depends
on them, and each one sees which faults those before it found.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import NamedTuple

from service.domain.system_alerts import AlertName
from service.domain.system_observation import (
    FRESH_HEALTH_SECONDS,
    MAX_SWEEP_AGE_SECONDS,
    History,
    IssuerObservation,
    Observation,
    Part,
)

#: a part that takes longer for its reads is slow
_SLOW_READ_SECONDS = 0.3
#: the same for the mean write of a batch, in so many last seconds
_SLOW_WRITE_SECONDS, _WRITE_WINDOW_SECONDS = 1.0, 15.0
_STUCK_SECONDS = 10.0
#: counts are kept for two of the longest pauses that a webhook's receiver may ask for
_KEPT_SECONDS = 660.0
#: when Redis is back, every issuer has published its health again within this time
_PUBLISHED_SECONDS = 10.0
#: at a first start, or when Redis has lost its data, the sweep has run within this time
_FIRST_SWEEP_SECONDS = 10.0
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
#: without a key, or with another topic, the issuer pauses all partitions
_PAUSES = (AlertName.KEY_MISSING, AlertName.TOPIC_REPLACED)
_UNDECIDED_CAUSES = (*_DATABASE, AlertName.KAFKA_DOWN, AlertName.WRITES_REFUSED, *_ISSUER, *_PAUSES)
#: What lets requests get 503. A key that has ended does so too, but its alert is also active while it is misused or
#: about to end: then it must not hide other causes.
_UNAVAILABLE_CAUSES = (
    *_DATABASE,
    AlertName.REDIS_DOWN,
    AlertName.KAFKA_DOWN,
    AlertName.WRITES_REFUSED,
    AlertName.TOPIC_REPLACED,
    AlertName.KEY_MISSING,
)
#: what lets work of any kind wait; Kafka may be Celery's broker. Without beat the issuer sends the messages again.
_WORK_CAUSES = (*_SWEEP_CAUSES, AlertName.KAFKA_DOWN, AlertName.WORKER_DOWN, AlertName.SWEEP_STALE)
#: and what lets one kind of work wait
_CAUSES_BY_WORK: Mapping[str, Collection[AlertName]] = {"notify": (AlertName.WEBHOOK_FAILING,)}
#: an alert of the service -> its name here
_SERVICE_ALERTS = {
    "dead_letters": AlertName.DEAD_LETTERS,
    "topic_replaced": AlertName.TOPIC_REPLACED,
    "topic": AlertName.TOPIC_SETTINGS,
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
    #: how long it must last until it is an alert, where that is longer than for others of its name
    delay_seconds: float = 0.0


class ActiveProblem(NamedTuple):
    """A problem that has lasted long enough to be an alert."""

    name: AlertName
    problem: Problem
    #: monotonic seconds
    since: float


class AlertRules:
    """Applies the rules to one observation after another, and remembers what they found."""

    def __init__(self) -> None:
        self._history = History(kept_seconds=_KEPT_SECONDS)
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
                found[name] = problem, self._found[name][1] if name in self._found else now.observed_at
        self._found, self._observed_at = found, now.observed_at

    def active(self) -> Iterator[ActiveProblem]:
        """Yield the problems that had lasted long enough at the last observation, causes first."""
        for name, (problem, found_at) in self._found.items():
            delay_seconds = max(problem.delay_seconds, _DELAY_SECONDS.get(name, 0.0))
            if self._observed_at - found_at >= delay_seconds:
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


def _database_down(situation: _Situation) -> Problem | None:
    if situation.now.available.get(Part.POSTGRESQL) is not False:
        return None
    return Problem("PostgreSQL has not answered for {}", situation.now.reasons.get(Part.POSTGRESQL))


def _redis_down(situation: _Situation) -> Problem | None:
    if situation.now.available.get(Part.REDIS) is not False:
        return None
    return Problem("Redis has not answered for {}", situation.now.reasons.get(Part.REDIS))


def _broker_down(situation: _Situation) -> Problem | None:
    """Find it by the issuers. The gate and the broker may be one server: then it is the gate that is named."""
    if situation.now.available.get(Part.BROKER) is not False or not _takes_writes(situation.now):
        return None
    return Problem("The issuer has not been able to use Celery's broker for {}", situation.now.reasons.get(Part.BROKER))


def _takes_writes(seen: Observation) -> bool:
    """Return whether the gate's Redis does what its users need."""
    return seen.available.get(Part.REDIS) is not False and seen.ready.get(Part.REDIS) is not False


def _kafka_down(situation: _Situation) -> Problem | None:
    """Find it, unless Kafka has answered that the topic does not exist, or is another one: then the topic is named."""
    if "topic_replaced" in situation.now.service_alerts:
        return None
    if situation.now.available.get(Part.KAFKA) is not False and situation.now.ready.get(Part.KAFKA) is not False:
        return None
    return Problem("Kafka has not answered or not acknowledged for {}", situation.now.reasons.get(Part.KAFKA))


def _database_slow(situation: _Situation) -> Problem | None:
    if AlertName.DATABASE_DOWN in situation.found:
        return None
    read = situation.now.database_read_seconds
    if read is not None and read > _SLOW_READ_SECONDS:
        return Problem("PostgreSQL has answered slowly for {}", f"the last reads took {read:.1f} s")
    writes = situation.history.increase(lambda seen: _total(seen, lambda issuer: issuer.writes), _WRITE_WINDOW_SECONDS)
    seconds = situation.history.increase(
        lambda seen: _total(seen, lambda issuer: issuer.write_seconds), _WRITE_WINDOW_SECONDS
    )
    if writes and seconds / writes > _SLOW_WRITE_SECONDS:
        return Problem("PostgreSQL has answered slowly for {}", f"the write of a batch takes {seconds / writes:.1f} s")
    return None


def _total(seen: Observation, count: Callable[[IssuerObservation], float]) -> float | None:
    return None if seen.issuers is None else sum(map(count, seen.issuers))


def _writes_refused(situation: _Situation) -> Problem | None:
    """Find a full disk, full memory, a replica that only reads. A slow database misses the time limit of the check."""
    if AlertName.DATABASE_SLOW in situation.found:
        return None
    for part, name in _PART_NAMES.items():
        if situation.now.ready.get(part) is False and situation.now.available.get(part) is True:
            text = f"{name} has answered reads and has not done what accepts need for {{}}"
            return Problem(text, situation.now.reasons.get(part), subject=name)
    return None


def _issuer_frozen(situation: _Situation) -> Problem | None:
    """Find an issuer that is there and publishes nothing, or whose loop is stuck.

    The connections of a process that has ended are closed; those of one that is frozen are not. An issuer that decides
    is not frozen, even if it cannot publish. While PostgreSQL or Kafka is away the loop waits for them.
    """
    if not _can_publish(situation):
        return None
    if fresh := _fresh(situation.now):
        stuck_seconds = min(issuer.iteration_age_seconds + issuer.age_seconds for issuer in fresh)
        causes = (*_DATABASE, AlertName.KAFKA_DOWN)
        if stuck_seconds > _STUCK_SECONDS and not situation.follows(causes, _RECOVERY_SECONDS):
            return Problem("The issuer's loop has made no progress for {}", age_seconds=stuck_seconds)
        return None
    if not situation.now.issuer_connections or _decides(situation.now):
        return None
    text = "The issuer has done nothing for {}, and its process is connected to PostgreSQL"
    return Problem(text, age_seconds=_silent_seconds(situation.now))


def _issuer_down(situation: _Situation) -> Problem | None:
    if not _can_publish(situation) or _fresh(situation.now) or situation.now.issuer_connections:
        return None
    return Problem("No issuer has run for {}", age_seconds=_silent_seconds(situation.now))


def _can_publish(situation: _Situation) -> bool:
    """Return whether Redis has taken the health of issuers for long enough that silence is their own."""
    if situation.now.issuers is None:
        return False
    return all(_takes_writes(seen) for seen in situation.history.last(_PUBLISHED_SECONDS))


def _decides(seen: Observation) -> bool:
    """Return whether some issuer decides records, or advances the watermark of an idle partition."""
    ages = seen.undecided_age_seconds.values()
    return min(ages, default=FRESH_HEALTH_SECONDS) < FRESH_HEALTH_SECONDS


def _silent_seconds(seen: Observation) -> float:
    return min((issuer.age_seconds for issuer in seen.issuers or ()), default=0.0)


def _fresh(seen: Observation) -> list[IssuerObservation]:
    return [issuer for issuer in seen.issuers or () if issuer.is_fresh]


class _LateSweep(NamedTuple):
    """That the sweep does not run: beat sends it every second, and a worker runs it."""

    #: completes a sentence
    since: str
    age_seconds: float
    delay_seconds: float

    def problem(self, what: str, reason: str) -> Problem:
        """Return the problem that `what` has not happened since then."""
        return Problem(f"{what} {self.since}", reason, self.age_seconds, delay_seconds=self.delay_seconds)


def _late_sweep(situation: _Situation) -> _LateSweep | None:
    if situation.now.available.get(Part.REDIS) is not True or situation.follows(_SWEEP_CAUSES, _RECOVERY_SECONDS):
        return None
    age = situation.now.sweep_age_seconds
    if age is None:
        return _LateSweep("in the last minute, or never", 0.0, _FIRST_SWEEP_SECONDS)
    return _LateSweep("for {}", age, 0.0) if age > MAX_SWEEP_AGE_SECONDS else None


def _worker_down(situation: _Situation) -> Problem | None:
    late, waiting = _late_sweep(situation), situation.now.maintenance_messages
    if late is None or waiting is None or waiting <= _MANY_MESSAGES:
        return None
    return late.problem("No Celery worker has taken a message", f"{waiting:.0f} messages wait in the queue maintenance")


def _beat_down(situation: _Situation) -> Problem | None:
    late, waiting = _late_sweep(situation), situation.now.maintenance_messages
    if late is None or waiting is None or waiting > _MANY_MESSAGES:
        return None
    return late.problem(
        "Celery beat has sent nothing", "no message waits in the queue maintenance, and no worker has run the sweep"
    )


def _sweep_stale(situation: _Situation) -> Problem | None:
    """Find what is the fault of the worker or of beat, where nobody says how many messages wait."""
    late = _late_sweep(situation)
    if late is None or situation.now.maintenance_messages is not None:
        return None
    return late.problem("The sweep has not run", "the lengths of Celery's queues are not known")


def _webhook_failing(situation: _Situation) -> Problem | None:
    """Find that notices wait, and that several POSTs failed since the last one that was accepted.

    The receiver may ask for a pause of five minutes, so nothing is concluded from a time without POSTs.
    """
    age = situation.now.work_age_seconds.get("notify", 0.0)
    rejected, unreachable = (
        situation.history.increase_since(_attempts(outcome), _attempts("accepted"))
        for outcome in ("rejected", "unreachable")
    )
    if rejected + unreachable <= 1 or age <= _MAX_NOTICE_AGE_SECONDS:
        return None
    reason = (
        f"{rejected + unreachable:.0f} POSTs failed after the last one that it accepted ({rejected:.0f} rejected,"
        f" {unreachable:.0f} without an answer)"
    )
    if situation.now.webhook_failure:
        reason += f"; the last one: {situation.now.webhook_failure}"
    return Problem("The webhook's receiver has accepted no notice for {}", reason, age)


def _attempts(outcome: str) -> Callable[[Observation], float | None]:
    return lambda seen: seen.webhook_attempts.get(outcome)


def _undecided(situation: _Situation) -> Problem | None:
    why = situation.now.service_alerts.get("undecided")
    if not why or situation.follows(_UNDECIDED_CAUSES, _BACKLOG_SECONDS):
        return None
    own = sorted({reason for issuer in _fresh(situation.now) for reason in issuer.reasons})
    return Problem("This has been so for {}", "; the issuer is not ready: ".join([why, *own]))


def _service_alert(alert: str) -> Rule:
    def rule(situation: _Situation) -> Problem | None:
        why = situation.now.service_alerts.get(alert)
        return Problem("This has been so for {}", why) if why else None

    return rule


def _proof_failed(situation: _Situation) -> Problem | None:
    if situation.now.proof_ok is not False:
        return None
    return Problem("The proof that found a broken promise ended {} ago", age_seconds=situation.now.proof_age_seconds)


def _backlog_full(situation: _Situation) -> Problem | None:
    refused = situation.history.increase(_responses("backlog_full"), 30.0)
    if not refused or situation.follows((*_DATABASE, *_ISSUER, *_PAUSES, AlertName.WRITES_REFUSED), _BACKLOG_SECONDS):
        return None
    return Problem("The line has been full for {}", f"{refused:.0f} requests to this API got 503 in the last 30 s")


def _requests_unavailable(situation: _Situation) -> Problem | None:
    unavailable = situation.history.increase(_responses("unavailable"), 60.0)
    responses = situation.history.increase(lambda seen: sum(seen.responses.values()), 60.0)
    if unavailable <= _MAX_UNAVAILABLE_SHARE * responses or situation.follows(_UNAVAILABLE_CAUSES, _BACKLOG_SECONDS):
        return None
    reason = f"{unavailable / responses:.0%} of the requests to this API in the last minute, and no part is away"
    return Problem("Requests have got 503 for {}", reason)


def _responses(code: str) -> Callable[[Observation], float | None]:
    return lambda seen: seen.responses.get(code, 0.0)


def _work_stuck(situation: _Situation) -> Problem | None:
    stuck = {
        kind: age
        for kind, age in situation.now.work_age_seconds.items()
        if age > _MAX_WORK_AGE_SECONDS
        and not situation.follows((*_WORK_CAUSES, *_CAUSES_BY_WORK.get(kind, ())), _BACKLOG_SECONDS)
    }
    if not stuck:
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
    AlertName.WORKER_DOWN: _worker_down,
    AlertName.BEAT_DOWN: _beat_down,
    AlertName.SWEEP_STALE: _sweep_stale,
    AlertName.WEBHOOK_FAILING: _webhook_failing,
    **{name: _service_alert(alert) for alert, name in _SERVICE_ALERTS.items()},
    AlertName.UNDECIDED: _undecided,
    AlertName.PROOF_FAILED: _proof_failed,
    AlertName.BACKLOG_FULL: _backlog_full,
    AlertName.REQUESTS_UNAVAILABLE: _requests_unavailable,
    AlertName.WORK_STUCK: _work_stuck,
}
