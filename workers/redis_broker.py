"""How Celery's clients connect if the broker is Redis: what kombu and Flower need of the broker's URL."""

import ssl
from typing import Any, NamedTuple

from kombu.utils.url import as_url, parse_url

from service.config import redis_url
from service.config.redis_options import tls_options
from service.gate.client import sentinel_options


class RedisBroker(NamedTuple):
    """Settings of Celery, without the prefix `broker_`."""

    url: str
    use_ssl: dict[str, Any] | bool
    transport_options: dict[str, Any]


def connection_settings(url: str) -> RedisBroker:
    """Return how to connect to the broker at a URL that the settings accept.

    Over TLS the certificate is verified, as the gate's is: by default kombu verifies none. The options are no part of
    kombu's URL: kombu converts two of them only, and Flower's own client reads the setting and not the URL.
    """
    address = redis_url.parse(url)
    server, _, _ = address.server.partition("?")
    use_ssl: dict[str, Any] | bool = False
    if server.startswith("rediss://"):
        options = {"ssl_cert_reqs": "required", **tls_options(address.server)}
        use_ssl = {**options, "ssl_cert_reqs": ssl.VerifyMode[f"CERT_{options['ssl_cert_reqs'].upper()}"]}
    if not address.sentinels:
        return RedisBroker(server, use_ssl, {})
    parts = parse_url(server)
    login = parts["userid"], parts["password"]
    sentinels = [as_url("sentinel", host, port, *login, parts["virtual_host"]) for host, port in address.sentinels]
    options = {"master_name": address.master_name, "sentinel_kwargs": sentinel_options(address)}
    return RedisBroker(";".join(sentinels), use_ssl, options)
