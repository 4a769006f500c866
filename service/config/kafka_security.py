"""How a process authenticates itself to Kafka's brokers, and verifies theirs.

Every client of Kafka gets the same settings: `service/stream/connection.py`.
"""

from typing import Any

from confluent_kafka import KafkaException, Producer
from pydantic import BaseModel, Field, SecretStr, ValidationInfo, field_validator

from service.config.connection_urls import check_http_url
from service.config.parsing import is_loopback
from service.config.tls_files import require_readable

PROTOCOLS = ("plaintext", "ssl", "sasl_plaintext", "sasl_ssl")
OAUTHBEARER = "OAUTHBEARER"
PASSWORD_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")

_OF_PASSWORDS = ("kafka_sasl_username", "kafka_sasl_password")
_NEEDED_BY_OAUTHBEARER = ("kafka_oauth_token_url", "kafka_oauth_client_id", "kafka_oauth_client_secret")
_OF_OAUTHBEARER = (*_NEEDED_BY_OAUTHBEARER, "kafka_oauth_scope", "kafka_oauth_extensions", "kafka_oauth_ca")
_OF_TLS = (
    "kafka_ssl_ca",
    "kafka_ssl_certificate",
    "kafka_ssl_key_password",
    "kafka_ssl_key",
    "kafka_ssl_verify_hostname",
)
#: files with certificates, and the setting of librdkafka that reads such a file
_CERTIFICATES = {
    "kafka_oauth_ca": "ssl.ca.location",
    "kafka_ssl_ca": "ssl.ca.location",
    "kafka_ssl_certificate": "ssl.certificate.location",
}


def _optional(description: str) -> Any:
    return Field("", validate_default=True, description=description)


def _optional_secret(description: str) -> Any:
    return Field(SecretStr(""), validate_default=True, description=description)


class KafkaSecuritySettings(BaseModel):
    """Protocol, credentials and certificates of the connections to Kafka.

    Every field is checked against those before it, so that a contradiction is reported at the field to correct.
    """

    kafka_security_protocol: str = Field("plaintext", description="plaintext, ssl, sasl_plaintext or sasl_ssl")
    kafka_sasl_mechanism: str = _optional("PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER")
    kafka_sasl_username: str = _optional("the user, for PLAIN and SCRAM; an API key in Confluent Cloud")
    kafka_sasl_password: SecretStr = _optional_secret("the user's password")
    kafka_oauth_token_url: str = _optional("token endpoint of an OpenID provider, for OAUTHBEARER")
    kafka_oauth_client_id: str = _optional("the client's id at the token endpoint")
    kafka_oauth_client_secret: SecretStr = _optional_secret("the client's secret")
    kafka_oauth_scope: str = _optional("the scope that is requested")
    kafka_oauth_extensions: str = _optional("SASL extensions: name=value, separated by commas")
    kafka_oauth_ca: str = _optional("PEM file with the CA of the token endpoint; empty: the system's CAs")
    kafka_ssl_ca: str = _optional("PEM file with the CA of the brokers' certificates; empty: the system's CAs")
    kafka_ssl_certificate: str = _optional("PEM file with this client's certificate, for brokers that demand one")
    kafka_ssl_key_password: SecretStr = _optional_secret("the password of the key's file")
    kafka_ssl_key: str = _optional("PEM file with the key of this client's certificate")
    kafka_ssl_verify_hostname: bool = Field(
        True, description="whether the broker's certificate must be for the host that the client connects to"
    )

    @field_validator("kafka_security_protocol")
    @classmethod
    def _is_known_protocol(cls, protocol: str) -> str:
        if protocol.lower() not in PROTOCOLS:
            raise ValueError(f"must be one of {', '.join(PROTOCOLS)}")
        return protocol.lower()

    @field_validator("kafka_sasl_mechanism")
    @classmethod
    def _fits_the_protocol(cls, mechanism: str, info: ValidationInfo) -> str:
        mechanism = mechanism.upper()
        protocol = info.data.get("kafka_security_protocol")
        known = (*PASSWORD_MECHANISMS, OAUTHBEARER)
        if mechanism and mechanism not in known:
            raise ValueError(
                f"must be one of {', '.join(known)}. AWS_MSK_IAM would need a token provider in the process: use"
                " SCRAM-SHA-512 or client certificates with MSK"
            )
        if protocol is None:
            return mechanism
        if mechanism and not protocol.startswith("sasl"):
            raise ValueError("has no effect without SASL: set KAFKA_SECURITY_PROTOCOL=sasl_ssl, or remove it")
        if not mechanism and protocol.startswith("sasl"):
            raise ValueError(f"is needed by KAFKA_SECURITY_PROTOCOL={protocol}: set it to one of {', '.join(known)}")
        return mechanism

    @field_validator(*_OF_PASSWORDS)
    @classmethod
    def _belongs_to_a_password(cls, value: Any, info: ValidationInfo) -> Any:
        mechanism = info.data.get("kafka_sasl_mechanism")
        if mechanism is None:  # it has a fault of its own
            return value
        if _text(value) and mechanism not in PASSWORD_MECHANISMS:
            raise ValueError("is used by the mechanisms PLAIN and SCRAM only: set KAFKA_SASL_MECHANISM, or remove it")
        if not _text(value) and mechanism in PASSWORD_MECHANISMS:
            raise ValueError(f"is needed by KAFKA_SASL_MECHANISM={mechanism}")
        return value

    @field_validator(*_OF_OAUTHBEARER)
    @classmethod
    def _belongs_to_oauthbearer(cls, value: Any, info: ValidationInfo) -> Any:
        mechanism = info.data.get("kafka_sasl_mechanism")
        if mechanism is None:
            return value
        if _text(value) and mechanism != OAUTHBEARER:
            raise ValueError(f"is used by {OAUTHBEARER} only: set KAFKA_SASL_MECHANISM={OAUTHBEARER}, or remove it")
        if not _text(value) and mechanism == OAUTHBEARER and info.field_name in _NEEDED_BY_OAUTHBEARER:
            raise ValueError(f"is needed by KAFKA_SASL_MECHANISM={OAUTHBEARER}")
        return value

    @field_validator("kafka_oauth_token_url")
    @classmethod
    def _is_token_endpoint(cls, url: str) -> str:
        if url:
            parts = check_http_url(url)
            if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
                raise ValueError("must begin with https://: the client's secret is sent there")
        return url

    @field_validator("kafka_oauth_extensions")
    @classmethod
    def _are_pairs(cls, extensions: str) -> str:
        if extensions and not all(pair.strip().find("=") > 0 for pair in extensions.split(",")):
            raise ValueError("must be name=value, separated by commas: logicalCluster=lkc-1,identityPoolId=pool-1")
        return extensions

    @field_validator(*_OF_TLS)
    @classmethod
    def _belongs_to_tls(cls, value: Any, info: ValidationInfo) -> Any:
        protocol = info.data.get("kafka_security_protocol")
        is_set = not value if isinstance(value, bool) else _text(value)
        if is_set and protocol and not protocol.endswith("ssl"):
            raise ValueError("has no effect without TLS: set KAFKA_SECURITY_PROTOCOL=sasl_ssl or ssl, or remove it")
        return value

    @field_validator(*_CERTIFICATES, "kafka_ssl_key")
    @classmethod
    def _is_readable(cls, path: str) -> str:
        if path:
            require_readable(path)
        return path

    @field_validator(*_CERTIFICATES)
    @classmethod
    def _has_certificates(cls, path: str, info: ValidationInfo) -> str:
        if path:
            _parse({_CERTIFICATES[str(info.field_name)]: path})
        return path

    @field_validator("kafka_ssl_key")
    @classmethod
    def _is_the_certificates_key(cls, path: str, info: ValidationInfo) -> str:
        certificate, password = info.data.get("kafka_ssl_certificate"), info.data.get("kafka_ssl_key_password")
        if certificate is None or password is None:
            return path
        if bool(path) != bool(certificate):
            raise ValueError("and KAFKA_SSL_CERTIFICATE go together: set both or none")
        if password.get_secret_value() and not path:
            raise ValueError("is needed by KAFKA_SSL_KEY_PASSWORD")
        if path:
            key = {"ssl.key.location": path, "ssl.key.password": password.get_secret_value()}
            _parse({"ssl.certificate.location": certificate, **{name: value for name, value in key.items() if value}})
        return path


def _text(value: str | SecretStr) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def _parse(files: dict[str, str]) -> None:
    """Let librdkafka read files of TLS as a client does that is built with them; raise ValueError with its reason.

    The client has no address, so nothing is connected.
    """
    try:
        Producer({"security.protocol": "ssl", "log_level": 0, **files})
    except KafkaException as error:
        raise ValueError(f"Kafka's client refuses it: {error.args[0].str()}") from None
