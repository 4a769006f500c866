"""Logging: one line an event, for eyes or as JSON, the standard library's loggers included."""

import logging
import logging.config
import sys
from typing import Any

import structlog

from service.config import Settings


def configure(settings: Settings) -> None:
    """Sends every logger's lines to standard error in one form."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _without_noise,
    ]
    last: Any = (
        structlog.processors.JSONRenderer()
        if settings.log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    formatter = {
        "()": structlog.stdlib.ProcessorFormatter,
        "processors": [
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            last,
        ],
        "foreign_pre_chain": shared,
    }
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"line": formatter},
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
            "root": {"handlers": ["stderr"], "level": settings.log_level.upper()},
            "loggers": {name: {"level": "WARNING"} for name in ("alembic", "httpx", "librdkafka")},
        }
    )


def _without_noise(_: Any, __: str, event: dict[str, Any]) -> dict[str, Any]:
    """Drops what uvicorn and Celery attach for handlers of their own."""
    return {name: value for name, value in event.items() if name not in ("color_message", "data")}
