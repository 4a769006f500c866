"""What librdkafka is told about the connection to Kafka, and that its files are checked at the start."""

from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from pydantic import ValidationError

from service.config import Settings
from service.stream.connection import connection_settings
from stack.certificates import Authority
from tests.unit import facts

_REQUIRED = {name.lower(): value for name, value in facts.ENVIRONMENT.items()}


def _settings(**security: Any) -> Settings:
    return Settings(**{**_REQUIRED, "kafka_bootstrap_servers": "host:9092", **security})


def test_without_settings_a_connection_has_no_security() -> None:
    assert connection_settings(_settings()) == {"bootstrap.servers": "host:9092", "security.protocol": "plaintext"}


def test_every_setting_reaches_the_client(tmp_path: Path) -> None:
    """The client knows each name, and builds a client with it."""
    authority = Authority.load_or_create(tmp_path, "a CA")
    client = authority.issue("me")
    settings = _settings(
        kafka_security_protocol="SASL_SSL",
        kafka_sasl_mechanism="scram-sha-512",
        kafka_sasl_username="me",
        kafka_sasl_password="my-password",
        kafka_ssl_ca=str(authority.certificate_file),
        kafka_ssl_certificate=str(client.certificate_file),
        kafka_ssl_key=str(client.key_file),
        kafka_ssl_verify_hostname=False,
    )
    found = connection_settings(settings)

    assert found == {
        "bootstrap.servers": "host:9092",
        "security.protocol": "sasl_ssl",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "me",
        "sasl.password": "my-password",
        "ssl.ca.location": str(authority.certificate_file),
        "ssl.certificate.location": str(client.certificate_file),
        "ssl.key.location": str(client.key_file),
        "ssl.endpoint.identification.algorithm": "none",
    }
    Producer({**found, "bootstrap.servers": ""})
    assert "my-password" not in repr(settings)


def test_tokens_are_requested_by_the_client() -> None:
    found = connection_settings(
        _settings(
            kafka_security_protocol="sasl_ssl",
            kafka_sasl_mechanism="OAUTHBEARER",
            kafka_oauth_token_url="https://id.example/token",
            kafka_oauth_client_id="me",
            kafka_oauth_client_secret="my-secret",
            kafka_oauth_extensions="logicalCluster=lkc-1,identityPoolId=pool-1",
        )
    )

    assert {name: value for name, value in found.items() if name.startswith("sasl.oauthbearer.")} == {
        "sasl.oauthbearer.method": "oidc",
        "sasl.oauthbearer.token.endpoint.url": "https://id.example/token",
        "sasl.oauthbearer.client.id": "me",
        "sasl.oauthbearer.client.secret": "my-secret",
        "sasl.oauthbearer.extensions": "logicalCluster=lkc-1,identityPoolId=pool-1",
    }


def test_a_key_of_another_certificate_is_refused(tmp_path: Path) -> None:
    """By librdkafka itself, before anything is connected."""
    authority = Authority.load_or_create(tmp_path, "a CA")
    mine, another = authority.issue("me"), authority.issue("another")

    with pytest.raises(ValidationError, match=r"Kafka's client refuses it: .*key values mismatch"):
        _settings(
            kafka_security_protocol="ssl",
            kafka_ssl_certificate=str(mine.certificate_file),
            kafka_ssl_key=str(another.key_file),
        )
