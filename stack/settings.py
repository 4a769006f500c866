"""The environment of the application's processes: addresses and ports that the user set, completed by the stack."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from service.config import Settings, secret_files
from service.config.kafka_security import KafkaSecuritySettings
from stack import ports
from stack.credentials import Credentials
from stack.errors import StackError
from stack.secured import REDIS_ACLS, TLS_PROXIES
from stack.server_env import LOOPBACK, ROOT
from stack.servers import kafka, postgres, valkey

ADDRESSES = {
    "kafka": ("KAFKA_BOOTSTRAP_SERVERS",),
    "postgres": ("DATABASE_URL",),
    "valkey": ("REDIS_URL", "CELERY_BROKER_URL"),
}
"""Server -> the variables with its address. If the user sets all of them, the server is external: not started."""

KAFKA_NODES = [name for names in kafka.NODE_NAMES.values() for name in names]
THREE_BROKER_TOPICS = {"TOPIC_REPLICATION": "3", "TOPIC_MIN_INSYNC_REPLICAS": "2"}
"""Settings of the topics on three brokers: one broker may be down."""

MIGRATE_DATABASE_URL = "MIGRATE_DATABASE_URL"
"""PostgreSQL's address for the migration: the stack sets it for its own server, as it does DATABASE_URL."""

FLOWER_USER = "coupons"

CELERY_OVER_KAFKA = "confluentkafka://"
"""A CELERY_BROKER_URL without an address: Celery's messages go over the stack's own Kafka."""

PORT_NAMES = {
    **{name: (name, f"{name}_controller") for name in KAFKA_NODES},
    "postgres": ("postgres",),
    **{name: (name,) for name in (*REDIS_ACLS, *TLS_PROXIES)},
    "api": ("api",),
    "issuer": ("issuer",),
    "flower": ("flower",),
}
"""Process -> the names of the ports on which it listens."""

PORT_VARIABLES = {"API_PORT": "api", "ISSUER_PORT": "issuer", "FLOWER_PORT": "flower"}
"""Variable -> the name of the port that it sets."""

SECURED = "SECURED"
"""on: a secured stack, see stack/secured.py."""

OAUTH_KEYS_URL = "KAFKA_OAUTH_KEYS_URL"
"""Where the Kafka of a secured stack gets the keys of tokens; empty: it accepts no tokens."""

LOG_RIGHTS = "KAFKA_LOG_RIGHTS"
"""on: the Kafka of a secured stack logs each right that a client uses."""

KAFKA_SECURITY = tuple(name.upper() for name in KafkaSecuritySettings.model_fields)
"""Settings of the connections to Kafka."""

ISOLATED = dict.fromkeys(
    [
        *(variable for variables in ADDRESSES.values() for variable in variables),
        *PORT_VARIABLES,
        *THREE_BROKER_TOPICS,
        MIGRATE_DATABASE_URL,
        "KAFKA_BROKERS",
        *KAFKA_SECURITY,
        SECURED,
        OAUTH_KEYS_URL,
        LOG_RIGHTS,
    ],
    "",
)
"""Variables that make a stack ignore what the shell sets: for callers that empty or damage the servers they use.

A value in a file, whose path is in the variable with `_FILE` appended, is ignored as well: see `user_environment`.
"""

FILE_SUFFIX = "_FILE"
MAY_BE_IN_FILE = (*(name.upper() for name in secret_files.names(Settings)), "FLOWER_BASIC_AUTH")
"""Settings of the processes that the user may have in a file."""

# Without FLOWER_PORT: a Flower that is started by hand in that shell would find this port taken.
EXPORTED = (
    MIGRATE_DATABASE_URL,
    *KAFKA_SECURITY,
    "REQUEST_ID_KEYS",
    "AUTH",
    "JWT_ISSUER",
    "JWT_AUDIENCE",
    "JWT_ALGORITHMS",
    "JWT_SECRET",
    "TICKET_KEYS",
    "FLOWER_BASIC_AUTH",
    *THREE_BROKER_TOPICS,
    "API_PORT",
    "ISSUER_PORT",
    *(f"{name.upper()}_URL" for name in PORT_VARIABLES.values()),
)


def user_environment(shell: Mapping[str, str], variables: Mapping[str, str]) -> dict[str, str]:
    """Return what the user set: `variables` take the place of what the shell sets, also where that is in a file.

    Files are read: the stack itself needs the addresses, and sets some settings if the user does not. Raises StackError
    with every file that cannot be read, and every variable that is set beside its file.
    """
    found = {name: value for name, value in shell.items() if name.removesuffix(FILE_SUFFIX) not in variables}
    found.update(variables)
    faults = []
    for name in MAY_BE_IN_FILE:
        path = found.pop(name + FILE_SUFFIX, "")
        if path and found.get(name):
            faults.append(f"{name}: is set, and {name}{FILE_SUFFIX} as well: unset one of them")
        elif path and isinstance(read := secret_files.read_secret(name + FILE_SUFFIX, path), secret_files.FileFault):
            faults.append(f"{name}: {read.reason}")
        elif path:
            found[name] = str(read)
    if faults:
        raise StackError("\n".join(faults))
    return found


def is_external(name: str, user_env: Mapping[str, str]) -> bool:
    """Return whether the user set every address of this server."""
    return name in ADDRESSES and all(map(user_env.get, ADDRESSES[name]))


def is_celery_over_kafka(user_env: Mapping[str, str]) -> bool:
    """Return whether Celery's broker is Kafka."""
    return user_env.get("CELERY_BROKER_URL", "").startswith(CELERY_OVER_KAFKA)


def processes_to_start(names: Iterable[str], user_env: Mapping[str, str]) -> list[str]:
    """Return the processes to start for these names.

    External servers are left out, and Flower if Celery's broker is Kafka. `kafka` stands for each of its nodes.
    """
    skipped = {"flower"} if is_celery_over_kafka(user_env) else set()
    started = [name for name in names if not is_external(name, user_env) and name not in skipped]
    return [process for name in started for process in (kafka.node_names(user_env) if name == "kafka" else [name])]


def proxy_port_name(proxy: str) -> str:
    """Return the name of the port on which Kafka listens for a proxy."""
    return f"kafka_for_{proxy}"


def port_names(processes: Iterable[str], kafka_proxies: Iterable[str] = ()) -> list[str]:
    """Return the names of all ports on which these processes listen."""
    names = [port for process in processes for port in PORT_NAMES.get(process, ())]
    return [*names, *(map(proxy_port_name, kafka_proxies) if "kafka" in names else ())]


def choose_ports(
    memory: Path, names: Sequence[str], user_env: Mapping[str, str], preferred: Mapping[str, int]
) -> dict[str, int]:
    """Return a free port for each of these names; raises PortTaken if a port that the user set is in use."""
    chosen = ports.user_ports(user_env, {var: name for var, name in PORT_VARIABLES.items() if name in names})
    return ports.assign(memory, {name: preferred.get(name) for name in names if name not in chosen}) | chosen


def process_environment(
    credentials: Credentials, chosen: Mapping[str, int], user_env: Mapping[str, str]
) -> dict[str, str]:
    """Return the environment of the application's processes: the user's, completed; `chosen` are the ports by name.

    What the user set takes precedence, except for hosts and ports: every process listens on loopback.
    """
    set_by_user = {name: value for name, value in user_env.items() if value}
    three_brokers = "kafka-1" in chosen and "TOPIC_REPLICATION" not in set_by_user
    completed = {
        "REQUEST_ID_KEYS": credentials.request_id_keys,
        **_callers(credentials, user_env),
        "ISSUER_INSTANCE": "issuer-0",
        "FLOWER_BASIC_AUTH": f"{FLOWER_USER}:{credentials.flower}",
        **_server_addresses(chosen, credentials),
        **(THREE_BROKER_TOPICS if three_brokers else {}),
        **set_by_user,
    }
    if completed.get("CELERY_BROKER_URL") == CELERY_OVER_KAFKA:
        completed["CELERY_BROKER_URL"] += completed["KAFKA_BOOTSTRAP_SERVERS"].partition(",")[0]
    if "postgres" in chosen:
        completed[MIGRATE_DATABASE_URL] = postgres.owner_url(chosen["postgres"], credentials)
    python_path = ":".join(filter(None, (str(ROOT), user_env.get("PYTHONPATH"))))
    return completed | _app_addresses(chosen) | {"PYTHONPATH": python_path, "PYTHONUNBUFFERED": "1"}


def _callers(credentials: Credentials, user_env: Mapping[str, str]) -> dict[str, str]:
    """Return the settings of authentication: off, unless the user sets AUTH=on; then `coupons token` signs tokens."""
    if user_env.get("AUTH") != "on":
        return {"AUTH": "off"}
    return {
        "JWT_ISSUER": "local",
        "JWT_AUDIENCE": "coupons",
        "JWT_ALGORITHMS": "HS256",
        "JWT_SECRET": credentials.jwt_secret,
        "TICKET_KEYS": credentials.ticket_keys,
    }


def exports(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that a shell needs to run one of the processes by hand.

    A shell that has one of them in a file must not have it twice.
    """
    names = [*(variable for variables in ADDRESSES.values() for variable in variables), *EXPORTED]
    found = {name: environment[name] for name in names if name in environment}
    return found | {name + FILE_SUFFIX: "" for name in found if name + FILE_SUFFIX in os.environ}


def _server_addresses(chosen: Mapping[str, int], credentials: Credentials) -> dict[str, str]:
    addresses: dict[str, str] = {}
    if brokers := [chosen[name] for name in KAFKA_NODES if name in chosen]:
        addresses["KAFKA_BOOTSTRAP_SERVERS"] = kafka.bootstrap_servers(brokers)
    if "postgres" in chosen:
        addresses["DATABASE_URL"] = postgres.application_url(chosen["postgres"], credentials)
    if "valkey" in chosen:
        addresses["REDIS_URL"] = valkey.url(chosen["valkey"], credentials.valkey, database=0)
        addresses["CELERY_BROKER_URL"] = valkey.url(chosen["valkey"], credentials.valkey, database=1)
    return addresses


def _app_addresses(chosen: Mapping[str, int]) -> dict[str, str]:
    addresses = {"API_HOST": LOOPBACK, "ISSUER_HOST": LOOPBACK}
    for variable, name in PORT_VARIABLES.items():
        if name in chosen:
            addresses[variable] = str(chosen[name])
            addresses[f"{name.upper()}_URL"] = f"http://{LOOPBACK}:{chosen[name]}"
    return addresses
