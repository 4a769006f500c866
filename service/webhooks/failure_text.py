"""Says why a POST was not accepted: the receiver's status and its own words, or the error of the connection."""

import httpx

from service.log import escape

#: characters of the receiver's words that are shown
_MAX_WORDS = 100
_HIDDEN = "…"


def answer_text(response: httpx.Response, body: bytes, secrets: tuple[str, ...]) -> str:
    """Return what the receiver answered.

    `body` is the beginning of the response's content, or nothing if that is no text. It is foreign: one line of it is
    shown, cut and escaped, and `secrets` that it repeats are hidden.
    """
    status = f"it answered {response.status_code} {httpx.codes.get_reason_phrase(response.status_code)}".rstrip()
    words = " ".join(body.decode(errors="replace").replace("\\/", "/").split())  # JSON may escape a slash
    for secret in secrets:
        words = words.replace(secret, _HIDDEN)
    if len(words) > _MAX_WORDS:
        words = words[:_MAX_WORDS] + _HIDDEN
    return f'{status} and said "{escape(words)}"' if words else status


def error_text(error: Exception, timeout_seconds: float) -> str:
    """Return why there was no answer: the error of the operating system or of TLS, which is the first cause."""
    if isinstance(error, TimeoutError | httpx.TimeoutException):
        return f"no answer within {timeout_seconds:g} s"
    first = _first_cause(error)
    return escape(f"{type(first).__name__}: {first}" if str(first) else type(first).__name__)


def _first_cause(error: BaseException) -> BaseException:
    """Return the error with which it began; of several addresses that were tried, that of the first one."""
    cause = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error.__cause__ or error.__context__
    return error if cause is None else _first_cause(cause)
