"""Flower's settings; what the environment says comes first. Its API can start tasks: it stays on loopback."""

import os

from service import config, startup
from service.domain.errors import Misconfigured

with startup.exit_on_error():
    if config.load().celery_over_kafka:
        raise Misconfigured(
            ["CELERY_BROKER_URL: Flower sees nothing over Kafka, which carries no events; let Redis be the broker"]
        )

address = os.environ.get("FLOWER_ADDRESS", "127.0.0.1")
