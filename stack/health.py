"""Asking a process over HTTP whether it is well."""

from http import HTTPStatus
from http.client import HTTPConnection, HTTPException

ANSWER_SECONDS = 2.0


def answers_200(host: str, port: int, path: str) -> bool:
    """Whether a GET is answered with 200."""
    connection = HTTPConnection(host, port, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == HTTPStatus.OK
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
