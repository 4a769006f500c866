"""What one Kafka node is told: who it is, where it listens, who the others are."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stack.parts.surroundings import LOOPBACK

ORDINARY = "PLAINTEXT"
"""The listener of brokers and of clients without a proxy."""

PROPERTIES = """\
process.roles=broker,controller
node.id={number}
listeners={listeners},CONTROLLER://{host}:{controller_port}
advertised.listeners={advertised}
listener.security.protocol.map={protocols},CONTROLLER:PLAINTEXT
inter.broker.listener.name={ordinary}
controller.listener.names=CONTROLLER
controller.quorum.voters={voters}
log.dirs={data}
auto.create.topics.enable=false
# A broker that was killed may register again only after its old session ended: by default nine seconds.
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=3000
# benchmarks/rebalance.py asks for less than the 45 and 5 seconds that are the least by default.
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
    """A port on which the broker listens, and the port under which it tells clients to come back."""

    name: str
    port: int
    advertised_port: int


@dataclass(frozen=True)
class Cluster:
    """What all nodes have in common: the cluster's id and where each controller listens, in the nodes' order."""

    id: str
    controller_ports: Sequence[int]

    @property
    def replicas(self) -> int:
        """How many brokers keep a record."""
        return len(self.controller_ports)

    @property
    def min_insync(self) -> int:
        """How many of them must have it before it is acknowledged: all but one, so that one can be away."""
        return max(1, self.replicas - 1)

    @property
    def voters(self) -> str:
        """The quorum of the controllers."""
        return ",".join(f"{number}@{LOOPBACK}:{port}" for number, port in enumerate(self.controller_ports, 1))


@dataclass(frozen=True)
class Node:
    """One process that is broker and controller; its first listener is the ordinary one."""

    number: int
    directory: Path
    listeners: Sequence[Listener]
    cluster: Cluster

    @property
    def port(self) -> int:
        """Where clients without a proxy find it."""
        return self.listeners[0].port

    def properties(self, data: Path) -> str:
        """Its configuration, with the log in `data`."""
        return PROPERTIES.format(
            number=self.number,
            host=LOOPBACK,
            ordinary=ORDINARY,
            listeners=",".join(f"{each.name}://{LOOPBACK}:{each.port}" for each in self.listeners),
            advertised=",".join(f"{each.name}://{LOOPBACK}:{each.advertised_port}" for each in self.listeners),
            protocols=",".join(f"{each.name}:PLAINTEXT" for each in self.listeners),
            controller_port=self.cluster.controller_ports[self.number - 1],
            voters=self.cluster.voters,
            replicas=self.cluster.replicas,
            min_insync=self.cluster.min_insync,
            data=data,
        )
