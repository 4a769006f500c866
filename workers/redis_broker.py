"""How Celery's clients connect if the broker is Redis: what kombu and Flower need of the broker's URL."""

import ssl
from typing import Any, NamedTuple

from kombu.connection import Connection
from kombu.utils.url import as_url, parse_url

from service.config import redis_url
from service.gate.client import sentinel_options


class RedisBroker(NamedTuple):
    """Settings of Celery, without the prefix `broker_`."""

    url: str
    use_ssl: dict[str, Any] | bool
    transport_options: dict[str, Any]


def connection_settings(url: str) -> RedisBroker:
    """Return how to connect to the broker at a URL that the settings accept; raise ValueError if kombu does not.

    Over TLS the certificate is verified, as the gate's is: by default kombu verifies none, and Flower's own client
    reads this setting only, not the URL.
    """
    address = redis_url.parse(url)
    try:
        parts = parse_url(address.server)
        use_ssl: dict[str, Any] | bool = False
        if parts["transport"] == "rediss":
            use_ssl = {"ssl_cert_reqs": ssl.CERT_REQUIRED, **parts.get("ssl", {})}
        # nothing is connected; kombu knows fewer options than Redis's client
        Connection(address.server, ssl=use_ssl)  # type: ignore[no-untyped-call]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"kombu refuses an option: {error}") from None
    if not address.sentinels:
        return RedisBroker(url, use_ssl, {})
    login = parts["userid"], parts["password"]
    sentinels = [as_url("sentinel", host, port, *login, parts["virtual_host"]) for host, port in address.sentinels]
    options = {"master_name": address.master_name, "sentinel_kwargs": sentinel_options(address)}
    return RedisBroker(";".join(sentinels), use_ssl, options)
