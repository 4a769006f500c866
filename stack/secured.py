"""A secured stack: TLS, passwords and rights at Kafka and Valkey, and for each process its own user.

The rights are those of deploy/kafka-acls.txt, deploy/redis-gate.acl and deploy/redis-broker.acl, which
docs/own-servers.md documents: what runs here needs no others. Gate and Celery's broker are two servers, so that each
has the rights of its own file only.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialAlteration,
    UserScramCredentialUpsertion,
)

from stack.certificates import Authority, Certificate
from stack.files import create_private_directory, load_or_create_secret
from stack.server_env import LOOPBACK, ROOT

ADMIN = "admin"
"""Kafka's superuser, whom the brokers and this stack use. No process of the service does."""

PRINCIPALS = ("api", "issuer", "worker", "beat", "flower", "operator", "migrate")
MECHANISMS = {"api": "SCRAM-SHA-512", "issuer": "SCRAM-SHA-256", "operator": "SCRAM-SHA-512"}
"""How a principal authenticates itself to Kafka; the others by PLAIN."""

SCRAM = {"SCRAM-SHA-256": ScramMechanism.SCRAM_SHA_256, "SCRAM-SHA-512": ScramMechanism.SCRAM_SHA_512}
SCRAM_ITERATIONS = 4096
KAFKA_ACLS = (ROOT / "deploy" / "kafka-acls.txt", ROOT / "deploy" / "kafka-acls-celery.txt")
GATE, BROKER = "valkey", "valkey-broker"
REDIS_ACLS = {GATE: ROOT / "deploy" / "redis-gate.acl", BROKER: ROOT / "deploy" / "redis-broker.acl"}
"""Valkey's processes -> the file with the users of each."""

TLS_PROXIES = {"valkey-tls": GATE, "valkey-broker-tls": BROKER}
"""The processes, and the names of their ports, through which clients reach Valkey -> the process behind each."""

TIMEOUT_SECONDS = 10.0

LISTENER, MUTUAL_LISTENER, OAUTH_LISTENER = "SECURED", "MUTUAL", "OAUTH"
MUTUAL_PORT, OAUTH_PORT = "kafka_mutual", "kafka_oauth"
GATE_TLS_PORT, BROKER_TLS_PORT = TLS_PROXIES
"""Names of the ports for clients with certificates, clients with tokens, and Valkey's two servers over TLS."""

_LOGIN = "org.apache.kafka.common.security"
PROPERTIES = """\
listener.name.secured.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.controller.sasl.enabled.mechanisms=PLAIN
sasl.mechanism.inter.broker.protocol=PLAIN
sasl.mechanism.controller.protocol=PLAIN
listener.name.secured.plain.sasl.jaas.config={plain}
listener.name.secured.scram-sha-256.sasl.jaas.config={login}.scram.ScramLoginModule required;
listener.name.secured.scram-sha-512.sasl.jaas.config={login}.scram.ScramLoginModule required;
listener.name.controller.plain.sasl.jaas.config={plain}
listener.name.mutual.ssl.client.auth=required
ssl.principal.mapping.rules=RULE:^CN=(.*)$/$1/
ssl.keystore.type=PEM
ssl.keystore.location={keystore}
ssl.truststore.type=PEM
ssl.truststore.location={truststore}
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:admin
"""
OAUTH_PROPERTIES = """\
listener.name.oauth.sasl.enabled.mechanisms=OAUTHBEARER
listener.name.oauth.oauthbearer.sasl.jaas.config={login}.oauthbearer.OAuthBearerLoginModule required;
listener.name.oauth.oauthbearer.sasl.server.callback.handler.class={login}.oauthbearer.OAuthBearerValidatorCallbackHandler
sasl.oauthbearer.jwks.endpoint.url={keys_url}
sasl.oauthbearer.expected.audience=kafka
"""


class Acl(NamedTuple):
    """One line of deploy/kafka-acls.txt."""

    principal: str
    kind: str
    name: str
    operations: tuple[str, ...]


@dataclass(frozen=True)
class Secured:
    """Certificates and passwords of a secured stack, and what servers and processes are configured with."""

    passwords: Mapping[str, str]
    ca_file: Path
    server: Certificate
    client: Certificate
    #: where Kafka gets the keys of tokens (OAUTHBEARER); empty: it accepts no tokens
    oauth_keys_url: str = ""
    #: Kafka's log has each right that a client uses, and not only those that it lacks
    log_rights: bool = False

    @classmethod
    def load_or_create(cls, directory: Path, *, oauth_keys_url: str = "", log_rights: bool = False) -> Self:
        """Return what is stored in a private directory; what is missing is created."""
        create_private_directory(directory)
        names = (ADMIN, *PRINCIPALS)
        passwords = {name: load_or_create_secret(directory / f"{name}.password") for name in names}
        authority = Authority.load_or_create(directory / "tls", "the CA of this stack")
        server, client = authority.issue("server"), authority.issue("operator")
        return cls(passwords, authority.certificate_file, server, client, oauth_keys_url, log_rights)

    @property
    def port_names(self) -> tuple[str, ...]:
        """The names of Kafka's ports beside those of a stack that is not secured."""
        return (MUTUAL_PORT, *((OAUTH_PORT,) if self.oauth_keys_url else ()))

    def kafka_properties(self) -> str:
        """Return what a broker's server.properties has in addition."""
        users = " ".join(f'user_{name}="{password}"' for name, password in self.passwords.items())
        admin = f'username="{ADMIN}" password="{self.passwords[ADMIN]}"'
        plain = f"{_LOGIN}.plain.PlainLoginModule required {admin} {users};"
        files = {"keystore": self.server.both_file, "truststore": self.ca_file}
        oauth = OAUTH_PROPERTIES.format(login=_LOGIN, keys_url=self.oauth_keys_url) if self.oauth_keys_url else ""
        return PROPERTIES.format(plain=plain, login=_LOGIN, **files) + oauth

    def jvm_options(self) -> tuple[str, ...]:
        """Return the options of Kafka's Java: it gets keys only from addresses that are allowed here."""
        keys = f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={self.oauth_keys_url}"
        level = "-Dauthorizer.level=debug"
        return (*((keys,) if self.oauth_keys_url else ()), *((level,) if self.log_rights else ()))

    def kafka_client(self, principal: str) -> dict[str, str]:
        """Return librdkafka's settings for a principal, without addresses."""
        return {
            "security.protocol": "sasl_ssl",
            "sasl.mechanism": MECHANISMS.get(principal, "PLAIN"),
            "sasl.username": principal,
            "sasl.password": self.passwords[principal],
            "ssl.ca.location": str(self.ca_file),
        }

    def redis_acl(self, server: str) -> str:
        """Return the ACL file of one of REDIS_ACLS: the one in deploy/ with the passwords of its users."""
        lines = REDIS_ACLS[server].read_text().splitlines(keepends=True)
        return "".join(line.replace("PASSWORD", self.passwords.get(line.split()[1], "")) for line in lines)

    def environment(self, process: str, ports: Mapping[str, int]) -> dict[str, str]:
        """Return the settings of a process; the ports are those of this stack's servers."""
        principal = process if process in PRINCIPALS else "operator"
        found: dict[str, str] = {}
        if "kafka" in ports:
            found |= {
                "KAFKA_BOOTSTRAP_SERVERS": f"{LOOPBACK}:{ports['kafka']}",
                "KAFKA_SECURITY_PROTOCOL": "sasl_ssl",
                "KAFKA_SASL_MECHANISM": MECHANISMS.get(principal, "PLAIN"),
                "KAFKA_SASL_USERNAME": principal,
                "KAFKA_SASL_PASSWORD": self.passwords[principal],
                "KAFKA_SSL_CA": str(self.ca_file),
            }
        user = f"{principal}:{self.passwords[principal]}"
        urls = {"REDIS_URL": (GATE_TLS_PORT, 0), "CELERY_BROKER_URL": (BROKER_TLS_PORT, 1)}
        for variable, (name, database) in urls.items():
            if name in ports:
                address = f"rediss://{user}@{LOOPBACK}:{ports[name]}/{database}"
                found[variable] = f"{address}?ssl_ca_certs={self.ca_file}"
        return found

    def grant(self, port: int) -> bool:
        """Create Kafka's users and their rights; return False while the broker does not answer."""
        admin = AdminClient({"bootstrap.servers": f"{LOOPBACK}:{port}", "log_level": 0, **self.kafka_client(ADMIN)})
        try:
            for mechanism in SCRAM.values():  # each user once in a call, whose results are by user
                for altered in admin.alter_user_scram_credentials(self._scram_users(mechanism)).values():
                    altered.result(TIMEOUT_SECONDS)
            for created in admin.create_acls(list(_bindings())).values():
                created.result(TIMEOUT_SECONDS)
        except (KafkaException, TimeoutError):
            return False
        return True

    def _scram_users(self, mechanism: ScramMechanism) -> list[UserScramCredentialAlteration]:
        stored = ScramCredentialInfo(mechanism, SCRAM_ITERATIONS)
        return [UserScramCredentialUpsertion(name, stored, self.passwords[name].encode()) for name in PRINCIPALS]


def read_kafka_acls(path: Path) -> list[Acl]:
    """Return the lines of a file in the form of deploy/kafka-acls.txt."""
    lines = [line.split() for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return [Acl(principal, kind, name, tuple(operations)) for principal, kind, name, *operations in lines]


def operation_name(operation: str) -> str:
    """Return the member of AclOperation for a name as Kafka's tools write it: DESCRIBE_CONFIGS for DescribeConfigs."""
    return re.sub("(?<=[a-z])(?=[A-Z])", "_", operation).upper()


def _bindings() -> Iterator[Any]:
    for acl in (acl for path in KAFKA_ACLS for acl in read_kafka_acls(path)):
        prefixed = acl.name.endswith("*")
        pattern = ResourcePatternType.PREFIXED if prefixed else ResourcePatternType.LITERAL
        for operation in acl.operations:
            yield AclBinding(
                ResourceType[acl.kind.upper()],
                acl.name.rstrip("*"),
                pattern,
                f"User:{acl.principal}",
                "*",
                AclOperation[operation_name(operation)],
                AclPermissionType.ALLOW,
            )
