"""Messages of Celery's broker, well-formed and malformed, as something else could put them there."""

import json
from base64 import b64encode
from typing import Any

from workers.queues import Task


def task_message(task: str, arguments: Any, **headers: Any) -> dict[str, Any]:
    """Return a message as kombu writes it."""
    body = json.dumps([arguments, {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}])
    return {
        "body": b64encode(body.encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "py", "task": task, "id": "test", "root_id": "test", "timelimit": [None, None], **headers},
        "properties": {
            "correlation_id": "test",
            "delivery_tag": "test",
            "delivery_info": {"exchange": "", "routing_key": "retry"},
            "body_encoding": "base64",
        },
    }


SWEEP = task_message(Task.SWEEP, [])
RETRY = task_message(Task.RETRY, [1, [[0, 10**15]], 1])
_VALUES: list[Any] = [None, True, 5, 1.5, "text", "", [], [1], {}, {"a": 1}, "\ud800"]
_EMBEDDED = b64encode(b'[[], {}, {"callbacks": [5], "errbacks": null, "chain": null, "chord": null}]').decode()
#: what kombu's decoder of JSON takes for a value of another type
_TYPED = (b'{"__type__": "datetime", "__value__": 5}', b'{"__type__": [], "__value__": 1}')
_WRONG_RETRY_ARGUMENTS: list[Any] = [[], [1], ["1", [[0, 1]], 1], [1, [[0]], 1], [1, [[0, 1]], 99], [{}, [], {}]]
_WRONG_STANDBY_ARGUMENTS: list[Any] = [[], ["1"], [0], [10**30], [None], 5, {}]


def malformed_messages() -> list[bytes]:
    """Return messages that are not JSON, of another shape, or of tasks and arguments that do not exist."""
    of_another_shape = [
        *_VALUES,
        *({**SWEEP, part: value} for part in SWEEP for value in _VALUES if part != "content-encoding"),
        *({name: value for name, value in SWEEP.items() if name != part} for part in ("body", "headers", "properties")),
        *(
            {**SWEEP, part: {**SWEEP[part], name: value}}
            for part, names in (
                ("headers", ("task", "id", "eta", "expires", "timelimit", "retries", "compression", "shadow")),
                ("properties", ("delivery_tag", "delivery_info", "body_encoding")),
            )
            for name in names
            for value in (5, "", "text", [1], {"a": 1})
            if (name, value) not in (("retries", 5), ("id", "text"), ("delivery_tag", "text"))
        ),
        {**SWEEP, "body": _EMBEDDED},
        task_message("celery.backend_cleanup", []),
        task_message(Task.SWEEP, [1]),
        *(task_message(Task.RETRY, arguments) for arguments in _WRONG_RETRY_ARGUMENTS),
        *(task_message(Task.DECIDE_STANDBY, arguments) for arguments in _WRONG_STANDBY_ARGUMENTS),
    ]
    not_json = [b"", b"[", b"\xff\xfe", b"text", b"[" * 100_000, b"9" * 5_000, *_TYPED]
    return [*not_json, *(json.dumps(message).encode() for message in of_another_shape)]
