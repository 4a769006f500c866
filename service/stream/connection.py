"""How every client of Kafka connects: addresses, protocol, credentials, certificates; and why a connection fails."""

import re
from syslog import LOG_INFO
from typing import Any

from confluent_kafka import KafkaError
from confluent_kafka.admin import AdminClient

from service.config import Settings
from service.config.kafka_security import OAUTHBEARER
from service.log import get_logger
from service.log_events import LogEvent

_log = get_logger(__name__)
#: of a connection whose first bytes a broker did not understand
_FIRST_STATES = ("APIVERSION_QUERY", "SSL_HANDSHAKE")
#: what begins the lines of librdkafka's log
_THREAD = re.compile(r"^\[thrd:[^\]]*\]: ")
#: what librdkafka calls a setting, and what this service does
_SETTING_NAMES = {
    "ssl.ca.location": "KAFKA_SSL_CA",
    "security.protocol": "KAFKA_SECURITY_PROTOCOL",
    "ssl.endpoint.identification.algorithm": "KAFKA_SSL_VERIFY_HOSTNAME",
    "sasl.mechanisms": "KAFKA_SASL_MECHANISM",
    "sasl.mechanism": "KAFKA_SASL_MECHANISM",
    "https.ca.location": "KAFKA_OAUTH_CA",
    "sasl.oauthbearer.token.endpoint.url": "KAFKA_OAUTH_TOKEN_URL",
}


def connection_settings(settings: Settings) -> dict[str, Any]:
    """Return the settings with which a client of the log's Kafka connects."""
    return {"bootstrap.servers": settings.kafka_bootstrap_servers, **security_settings(settings)}


def security_settings(settings: Settings) -> dict[str, Any]:
    """Return the settings of a connection without addresses: Celery's transport over Kafka has them in its URL."""
    password = settings.kafka_sasl_password.get_secret_value()
    secret = settings.kafka_oauth_client_secret.get_secret_value()
    with_tls, with_oauth = (
        settings.kafka_security_protocol.endswith("ssl"),
        settings.kafka_sasl_mechanism == OAUTHBEARER,
    )
    found: dict[str, Any] = {
        "security.protocol": settings.kafka_security_protocol,
        "sasl.mechanism": settings.kafka_sasl_mechanism,
        "sasl.username": settings.kafka_sasl_username,
        "sasl.password": password,
        "sasl.oauthbearer.method": "oidc" if with_oauth else "",
        "sasl.oauthbearer.token.endpoint.url": settings.kafka_oauth_token_url,
        "sasl.oauthbearer.client.id": settings.kafka_oauth_client_id,
        "sasl.oauthbearer.client.secret": secret,
        "sasl.oauthbearer.scope": settings.kafka_oauth_scope,
        "sasl.oauthbearer.extensions": settings.kafka_oauth_extensions,
        "https.ca.location": settings.kafka_oauth_ca,
        "ssl.ca.location": settings.kafka_ssl_ca,
        "ssl.certificate.location": settings.kafka_ssl_certificate,
        "ssl.key.location": settings.kafka_ssl_key,
        "ssl.key.password": settings.kafka_ssl_key_password.get_secret_value(),
        # librdkafka compares host and certificate unless it is told not to
        "ssl.endpoint.identification.algorithm": "none" if with_tls and not settings.kafka_ssl_verify_hostname else "",
    }
    return {name: value for name, value in found.items() if value}


def log_client_error(error: KafkaError) -> None:
    """Log what a client reports about its connections; a client's `error_cb`."""
    _log.warning(LogEvent.KAFKA_CLIENT_ERROR, reason=explain(error))


def explain(error: KafkaError) -> str:
    """Return the client's text, with the names that its settings have here, and the name of the error."""
    text = str(error.str())
    for theirs, ours in _SETTING_NAMES.items():
        text = text.replace(theirs, ours)
    if "Disconnected" in text and any(f"in state {state}" in text for state in _FIRST_STATES):
        text += ": the listener may expect another KAFKA_SECURITY_PROTOCOL"
    if "OAUTHBEARER token" in text and ("certificate" in text or "trust anchors" in text):
        text += ": KAFKA_OAUTH_CA must be the CA of KAFKA_OAUTH_TOKEN_URL"
    return f"{text} ({error.name()})"


class _LastFault:
    """An object of its own, so that a client that is not used any more is freed at once: it would refer to itself."""

    def __init__(self) -> None:
        self.error: KafkaError | None = None
        #: what the client logged about a connection: a listener of another protocol is reported there only
        self.logged: KafkaError | None = None

    def remember(self, error: KafkaError) -> None:
        if error.code() != KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001  # its public name; it says nothing about why
            self.error = error

    def log(self, _level: int, _format: str, facility: str, _client: str, text: str) -> None:
        """Take a line as a logger does."""
        if facility == "FAIL":
            self.logged = KafkaError(KafkaError._TRANSPORT, _THREAD.sub("", text))  # noqa: SLF001  # its public name


class Admin(AdminClient):
    """An admin client that remembers why it has no connection.

    A call ends with "timed out" whatever the reason is. The reason, such as a refused password or an unknown CA, goes
    to `error_cb` or the log only, when the client is polled. This one logs nothing: what calls it reports the reason.
    """

    def __init__(self, settings: Settings, **more: Any) -> None:
        """Build the client, which connects at first use; `more` are settings of its own."""
        self._fault = _LastFault()
        reports: dict[str, Any] = {"log_level": LOG_INFO, "error_cb": self._fault.remember, "logger": self._fault}
        super().__init__(connection_settings(settings) | reports | more)

    def connection_fault(self) -> KafkaError | None:
        """Return what the client reported last about its connections since the last successful call, or None."""
        self.poll(0)
        return self._fault.error or self._fault.logged

    def forget_fault(self) -> None:
        """Forget what was reported: a broker has answered."""
        self.poll(0)
        self._fault.error = self._fault.logged = None
