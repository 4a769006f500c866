"""What `coupons doctor` finds."""

from enum import StrEnum
from typing import NamedTuple


class Part(StrEnum):
    """What is checked, in this order."""

    SETTINGS = "settings"
    FILES = "open files"
    POSTGRESQL = "postgresql"
    SCHEMA = "schema"
    RIGHTS = "rights"
    KEYS = "keys"
    KAFKA = "kafka"
    TOPICS = "topics"
    LOG = "log"
    REDIS = "redis"
    BROKER = "celery broker"
    CLOCKS = "clocks"
    ISSUER = "issuer"
    WORKER = "worker"
    ADDRESSES = "other addresses"


class Verdict(StrEnum):
    """Whether a part is in order."""

    OK = "ok"
    #: the system works, and an operator should act
    WARNING = "warning"
    FAILED = "failed"
    #: it needs a part that has failed
    SKIPPED = "skipped"


class Finding(NamedTuple):
    """One thing that was checked."""

    part: Part
    verdict: Verdict
    found: str
    #: what to do; empty if nothing is to be done, or if `found` says it
    remedy: str = ""
