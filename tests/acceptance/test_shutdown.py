"""A graceful shutdown of the API loses no answer: every request that a connection has taken is answered."""

import threading
from concurrent.futures import ThreadPoolExecutor

from tests.raw_http import connected, raw_post, read_response
from tests.system import System

_CLIENTS = 16
_REQUESTS = 60
#: the requests of a client before which the API is restarted
_RESTARTS_BEFORE = (20, 40)


def test_a_restart_under_load_loses_no_answer(system: System) -> None:
    """Clients that use their connections again and again get a response to each request that they sent."""
    coupon = system.make_coupon(quantity=_CLIENTS * _REQUESTS)
    restart = threading.Barrier(_CLIENTS + 1, timeout=60)

    with ThreadPoolExecutor(_CLIENTS) as pool:
        lost = [pool.submit(lost_answers, system, coupon, client, restart) for client in range(_CLIENTS)]
        for _ in _RESTARTS_BEFORE:
            restart.wait()
            system.stack.restart("api")
        system.record_unknown(coupon, *range(1, _CLIENTS * _REQUESTS + 1))

        assert [each.result() for each in lost] == [0] * _CLIENTS


def lost_answers(system: System, coupon: int, client: int, restart: threading.Barrier) -> int:
    """Send the requests of a client, each after the answer to the last; return how many were sent and not answered."""
    lost = number = 0
    while number < _REQUESTS:
        try:
            with connected(system) as connection:
                response = b""
                while number < _REQUESTS and b"connection: close" not in response:
                    if number in _RESTARTS_BEFORE:
                        restart.wait()
                    number += 1
                    connection.sendall(raw_post(coupon, client * _REQUESTS + number))
                    response = read_response(connection)
                    lost += not response.startswith(b"HTTP/1.1 202 ")
                    if not response:
                        break
        except ConnectionRefusedError:  # nothing was sent: the API is starting again
            continue
        except ConnectionError:
            lost += 1
    return lost
