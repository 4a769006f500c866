"""Logging: one line an event, as text or JSON; loggers of libraries go to the same place in the same form.

Foreign text in it is escaped, as in all output: a terminal obeys control characters, and a line could be forged.
"""

import logging.config
import sys
from typing import Any

import structlog
from structlog.contextvars import bind_contextvars, bound_contextvars

from service.config import Settings

__all__ = [
    "bind_contextvars",
    "bound_contextvars",
    "configure",
    "escape",
    "escape_lines",
    "get_logger",
]

_PROCESSORS: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]

structlog.configure(
    processors=[
        structlog.stdlib.filter_by_level,
        *_PROCESSORS,
        structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
    ],
    logger_factory=structlog.stdlib.LoggerFactory(),
    wrapper_class=structlog.stdlib.BoundLogger,
    cache_logger_on_first_use=True,
)


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return a logger whose events are members of LogEvent and whose details are fields."""
    logger: structlog.stdlib.BoundLogger = structlog.get_logger(name)
    return logger


def configure(settings: Settings) -> None:
    """Send every logger's lines to standard error, in the form and from the level that the settings name."""
    renderers: list[Any] = (
        [structlog.processors.JSONRenderer()]
        if settings.log_format == "json"
        else [_escape_foreign_text, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    )

    def drop_unused(_: Any, __: str, event: dict[str, Any]) -> dict[str, Any]:
        """Drop the fields that uvicorn and Celery attach for their own handlers."""
        return {name: value for name, value in event.items() if name not in ("color_message", "data")}

    formatter = {
        "()": structlog.stdlib.ProcessorFormatter,
        "processors": [
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            *renderers,
        ],
        "foreign_pre_chain": [*_PROCESSORS, structlog.stdlib.ExtraAdder(), drop_unused],
    }
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"line": formatter},
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
            "root": {"handlers": ["stderr"], "level": settings.log_level.upper()},
            "loggers": {
                **{name: {"level": "WARNING"} for name in ("alembic", "httpx", "librdkafka")},
                "opentelemetry": {"level": "ERROR"},  # it warns of headers that any caller can send
            },
        }
    )


def _escape_foreign_text(_: Any, __: str, event: dict[str, Any]) -> dict[str, Any]:
    """Escape the texts of a line for people: records, other services and clients write parts of them.

    Only an event of a library and a stack trace have several lines. Values that are not text are shown by `repr`, which
    escapes as well.
    """
    escapes = {"event": escape_lines, "exception": escape_lines, "stack": escape_lines}
    return {
        name: escapes.get(name, escape)(value) if isinstance(value, str) else value for name, value in event.items()
    }


def escape(text: str) -> str:
    """Replace characters that are not printable, such as ESC or a line break, by their Python escapes."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def escape_lines(text: str) -> str:
    """Do the same in each line, and keep the lines."""
    return "\n".join(map(escape, text.split("\n")))
