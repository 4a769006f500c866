"""Configuration of one Kafka node: its id, its listeners, and the controllers of the cluster."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stack.server_env import LOOPBACK

DIRECT = "PLAINTEXT"
"""The name of the listener for other brokers and for clients without a proxy."""

PROPERTIES = """\
process.roles=broker,controller
node.id={number}
listeners={listeners},CONTROLLER://{host}:{controller_port}
advertised.listeners={advertised}
listener.security.protocol.map={protocols},CONTROLLER:{controller_protocol}
inter.broker.listener.name={direct}
controller.listener.names=CONTROLLER
controller.quorum.voters={voters}
log.dirs={data}
auto.create.topics.enable=false
# A killed broker can register again only after its old session has expired: nine seconds by default.
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=3000
# benchmarks/rebalance.py needs less than the default minimums of 45 and 5 seconds.
group.consumer.min.session.timeout.ms=3000
group.consumer.min.heartbeat.interval.ms=1000
min.insync.replicas={min_insync}
offsets.topic.replication.factor={replicas}
offsets.topic.num.partitions=3
transaction.state.log.replication.factor={replicas}
transaction.state.log.min.isr={min_insync}
transaction.state.log.num.partitions=3
share.coordinator.state.topic.replication.factor={replicas}
share.coordinator.state.topic.min.isr={min_insync}
share.coordinator.state.topic.num.partitions=3
"""


@dataclass(frozen=True)
class Listener:
    """A port on which the broker listens, and the port that it advertises to clients."""

    name: str
    port: int
    advertised_port: int
    protocol: str = "PLAINTEXT"


@dataclass(frozen=True)
class Cluster:
    """What all nodes share: the cluster's id and the port of each controller, in the order of the nodes."""

    id: str
    controller_ports: Sequence[int]

    @property
    def replicas(self) -> int:
        """The number of brokers that store each record."""
        return len(self.controller_ports)

    @property
    def min_insync(self) -> int:
        """The number of replicas that must have a record before the ack: all but one, so that one may be down."""
        return max(1, self.replicas - 1)

    @property
    def voters(self) -> str:
        """The controllers of the quorum, as Kafka writes them."""
        return ",".join(f"{number}@{LOOPBACK}:{port}" for number, port in enumerate(self.controller_ports, 1))


@dataclass(frozen=True)
class Node:
    """One process that is both broker and controller; brokers use its first listener."""

    number: int
    directory: Path
    listeners: Sequence[Listener]
    cluster: Cluster
    #: further lines of server.properties; with those of stack/secured.py brokers authenticate themselves to controllers
    security: str = ""

    @property
    def port(self) -> int:
        """The port for clients without a proxy."""
        return self.listeners[0].port

    def properties(self, data: str) -> str:
        """Return the node's server.properties, with the log in the folder `data` of its directory."""
        return (
            PROPERTIES.format(
                number=self.number,
                host=LOOPBACK,
                direct=self.listeners[0].name,
                listeners=",".join(f"{listener.name}://{LOOPBACK}:{listener.port}" for listener in self.listeners),
                advertised=",".join(
                    f"{listener.name}://{LOOPBACK}:{listener.advertised_port}" for listener in self.listeners
                ),
                protocols=",".join(f"{listener.name}:{listener.protocol}" for listener in self.listeners),
                controller_protocol="SASL_PLAINTEXT" if self.security else "PLAINTEXT",
                controller_port=self.cluster.controller_ports[self.number - 1],
                voters=self.cluster.voters,
                replicas=self.cluster.replicas,
                min_insync=self.cluster.min_insync,
                data=data,
            )
            + self.security
        )
