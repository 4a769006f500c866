"""Where everything is: what the user gave and what the stack starts, as the environment of the processes."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from stack import ports
from stack.files import kept_secret
from stack.parts import kafka, postgres, valkey
from stack.parts.surroundings import LOOPBACK, ROOT

ADDRESSES = {
    "kafka": ("KAFKA_BOOTSTRAP_SERVERS",),
    "postgres": ("DATABASE_URL",),
    "valkey": ("REDIS_URL", "CELERY_BROKER_URL"),
}
"""Part → the variables that say where it is; if all are given, it is not started."""

KAFKA = [name for names in kafka.NAMES.values() for name in names]
REPLICATED = {"TOPIC_REPLICATION": "3", "TOPIC_MIN_INSYNC_REPLICAS": "2"}
"""The topics' shape on three brokers, so that one of them can be away."""

OVER_KAFKA = "confluentkafka://"
"""A CELERY_BROKER_URL without an address: Celery's messages go over the Kafka that the log is in."""

LISTENERS = {
    **{name: (name, f"{name}_controller") for name in KAFKA},
    "postgres": ("postgres",),
    "valkey": ("valkey",),
    "api": ("api",),
    "issuer": ("issuer",),
    "flower": ("flower",),
}
"""Part → the names of the ports it listens on."""

PORT_VARIABLES = {"API_PORT": "api", "ISSUER_PORT": "issuer", "FLOWER_PORT": "flower"}
OWN = dict.fromkeys(
    [*(name for names in ADDRESSES.values() for name in names), *PORT_VARIABLES, *REPLICATED, "KAFKA_BROKERS"], ""
)
"""Variables that make a stack use nothing that the shell names: for those who empty or spoil what they run on."""

#: not FLOWER_PORT: a Flower started by hand in that shell would find it taken
EXPORTED = (
    "REQUEST_ID_KEYS",
    *REPLICATED,
    "API_PORT",
    "ISSUER_PORT",
    *(f"{name.upper()}_URL" for name in PORT_VARIABLES.values()),
)


def is_given(name: str, given: Mapping[str, str]) -> bool:
    """Whether the user gave this part."""
    return name in ADDRESSES and all(map(given.get, ADDRESSES[name]))


def to_start(names: Iterable[str], given: Mapping[str, str]) -> list[str]:
    """The named parts, each Kafka node one; without those that the user gave, and a Flower that would see nothing."""
    blind = {"flower"} if given.get("CELERY_BROKER_URL", "").startswith(OVER_KAFKA) else set()
    absent = [name for name in names if not is_given(name, given) and name not in blind]
    return [part for name in absent for part in (kafka.names(given) if name == "kafka" else [name])]


def proxied(name: str) -> str:
    """The name of the port on which Kafka listens for a proxy."""
    return f"kafka_for_{name}"


def listening(names: Iterable[str], kafka_proxies: Iterable[str] = ()) -> list[str]:
    """The names of all ports that the named parts listen on."""
    own = [port for name in names for port in LISTENERS.get(name, ())]
    return [*own, *(map(proxied, kafka_proxies) if "kafka" in own else ())]


def choose_ports(
    memory: Path, names: Sequence[str], given: Mapping[str, str], preferred: Mapping[str, int]
) -> dict[str, int]:
    """A free port for each of these names; raises PortTaken if the user's own choice is in use."""
    chosen = ports.chosen_by_user(given, {var: name for var, name in PORT_VARIABLES.items() if name in names})
    return ports.assign(memory, {name: preferred.get(name) for name in names if name not in chosen}) | chosen


def environment(directory: Path, chosen: Mapping[str, int], given: Mapping[str, str]) -> dict[str, str]:
    """What the application's processes are told: the user's own environment, completed."""
    set_by_user = {name: value for name, value in given.items() if value}
    replicated = "kafka-1" in chosen and "TOPIC_REPLICATION" not in set_by_user
    completed = {
        "REQUEST_ID_KEYS": kept_secret(directory / "request_id_keys"),
        "ISSUER_INSTANCE": "issuer-0",
        "FLOWER_UNAUTHENTICATED_API": "true",
        **_addresses(chosen),
        **(REPLICATED if replicated else {}),
        **set_by_user,
    }
    if completed.get("CELERY_BROKER_URL") == OVER_KAFKA:
        completed["CELERY_BROKER_URL"] += completed["KAFKA_BOOTSTRAP_SERVERS"].partition(",")[0]
    python_path = ":".join(filter(None, (str(ROOT), given.get("PYTHONPATH"))))
    return completed | _own_addresses(chosen) | {"PYTHONPATH": python_path, "PYTHONUNBUFFERED": "1"}


def exports(complete: Mapping[str, str]) -> dict[str, str]:
    """What a shell needs to run one of the processes by hand."""
    names = [*(variable for variables in ADDRESSES.values() for variable in variables), *EXPORTED]
    return {name: complete[name] for name in names if name in complete}


def _addresses(chosen: Mapping[str, int]) -> dict[str, str]:
    found: dict[str, str] = {}
    if brokers := [chosen[name] for name in KAFKA if name in chosen]:
        found["KAFKA_BOOTSTRAP_SERVERS"] = kafka.bootstrap_servers(brokers)
    if "postgres" in chosen:
        found["DATABASE_URL"] = postgres.url(chosen["postgres"])
    if "valkey" in chosen:
        found["REDIS_URL"] = valkey.url(chosen["valkey"], database=0)
        found["CELERY_BROKER_URL"] = valkey.url(chosen["valkey"], database=1)
    return found


def _own_addresses(chosen: Mapping[str, int]) -> dict[str, str]:
    found = {"API_HOST": LOOPBACK, "ISSUER_HOST": LOOPBACK}
    for variable, name in PORT_VARIABLES.items():
        if name in chosen:
            found[variable] = str(chosen[name])
            found[f"{name.upper()}_URL"] = f"http://{LOOPBACK}:{chosen[name]}"
    return found
