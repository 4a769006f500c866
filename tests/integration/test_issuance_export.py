"""An export streams every request of a coupon, in bounded memory, and is never taken for complete when it is not."""

import csv
import io
import json
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import httpx
import pytest
from redis import Redis
from sqlalchemy import Connection, Engine, event, text

from service import resources as service_resources
from service.api import app
from service.api.plain_requests import CouponProtocol
from service.config import Settings
from service.domain.coupon import Coupon
from service.domain.request import RequestState
from service.limits import EXPORT_PAGE_OFFSETS, MAX_EXPORTS
from service.log_events import LogEvent
from service.server import guarded_protocol
from service.usecases.issuance_export import ExportFormat, IssuanceExporter
from tests.integration.conftest import Query
from tests.log import Log
from tests.server_thread import ServerThread
from tests.waiting import eventually

MakeCoupon = Callable[..., Coupon]
#: as text more than the socket buffers of both sides hold
_MANY = 40_000
_TRANSACTIONS = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'api reports' AND xact_start IS NOT NULL"
_INSERT = text(
    'INSERT INTO requests (log_id, partition, "offset", coupon_id, user_id, request_id, state, code, attempts,'
    " requested_at, decided_at) SELECT :log, 0, number, :coupon, number + 1, rpad('request-' || number, 60, '-'),"
    " 'refused', 'sold_out', 1, now(), now() FROM generate_series(CAST(:first AS bigint), :last) AS number"
)


@pytest.fixture
def server(settings: Settings, real_log: Log) -> Iterator[ServerThread]:
    """An API in this process."""
    del real_log  # emptied
    common = service_resources.open_resources(settings, "api", connections=10)
    server = ServerThread(app.create_app(common), CouponProtocol)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def http(server: ServerThread) -> Iterator[httpx.Client]:
    """A client of the API."""
    host, port = server.address
    with httpx.Client(base_url=f"http://{host}:{port}", timeout=30) as client:
        eventually(lambda: client.get("/healthz").status_code == 200)
        yield client


@pytest.fixture
def many(make_coupon: MakeCoupon, admin: Engine, log_id: int) -> int:
    """The id of a coupon with many requests."""
    coupon = make_coupon()
    with admin.begin() as tx:
        tx.execute(_INSERT, {"log": log_id, "coupon": coupon.id, "first": 0, "last": _MANY - 1})
    return coupon.id


@pytest.fixture
def sold(real_log: Log, make_coupon: MakeCoupon, exhaust_retries: Callable[[], None]) -> int:
    """The id of a coupon with issued, refused and dead requests, between requests for another one."""
    coupon, other = make_coupon(quantity=3), make_coupon(quantity=9)
    for user in range(1, 8):
        real_log.append_request(coupon.id, user, fault="22012 9" if user == 2 else None)
        real_log.append_request(other.id, user)
    real_log.issue()
    exhaust_retries()
    return coupon.id


def _rows(query: Query, coupon_id: int) -> list[dict[str, Any]]:
    """Return what an export must contain, with times as text."""
    time_form = """'YYYY-MM-DD"T"HH24:MI:SS.US'"""
    columns = (
        "request_id, coupon_id, user_id, state, code, sequence, attempts,"
        f" to_char(requested_at, {time_form}) AS requested_at, to_char(decided_at, {time_form}) AS decided_at,"
        ' log_id, partition, "offset"'
    )
    found = query(
        f'SELECT {columns} FROM requests WHERE coupon_id = :id ORDER BY log_id, partition, "offset"', id=coupon_id
    )
    return [dict(row._mapping) for row in found]


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """Return an exported object with times in microseconds and without their zone, which is UTC."""
    assert {row["requested_at"][-1], (row["decided_at"] or "Z")[-1]} == {"Z"}
    times = {
        name: row[name] and (row[name].removesuffix("Z") + ".000000")[:26] for name in ("requested_at", "decided_at")
    }
    return {**row, **times}


def test_json_lines_are_the_rows_of_the_coupon_in_the_order_of_the_log(
    http: httpx.Client, sold: int, query: Query
) -> None:
    response = http.get(f"/coupons/{sold}/issuances", params={"format": "jsonl"})

    rows = [_plain(json.loads(line)) for line in response.text.splitlines()]
    assert rows == _rows(query, sold)
    assert {row["state"] for row in rows} == {"issued", "refused", "dead"}
    assert response.headers["Content-Type"] == "application/jsonl"
    assert response.headers["Content-Disposition"] == f'attachment; filename="coupon-{sold}-issuances.jsonl"'


def test_csv_has_the_same_rows_under_a_header(http: httpx.Client, sold: int, query: Query) -> None:
    """RFC 4180: lines end with CR LF; what is null in JSON is an empty cell."""
    response = http.get(f"/coupons/{sold}/issuances")

    header, *rows = csv.reader(io.StringIO(response.text, newline=""), strict=True)
    named = [_plain(dict(zip(header, row, strict=True))) for row in rows]
    assert named == [
        {name: "" if value is None else str(value) for name, value in row.items()} for row in _rows(query, sold)
    ]
    assert response.text.count("\r\n") == response.text.count("\n") == 8
    assert response.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert response.headers["Content-Disposition"] == f'attachment; filename="coupon-{sold}-issuances.csv"'


def test_a_state_selects_rows(http: httpx.Client, sold: int, query: Query) -> None:
    for state in ("issued", "dead", "standby"):
        lines = http.get(f"/coupons/{sold}/issuances", params={"format": "jsonl", "state": state}).text.splitlines()

        assert [_plain(json.loads(line)) for line in lines] == [
            row for row in _rows(query, sold) if row["state"] == state
        ]


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/coupons/999/issuances", 404, "unknown_coupon"),
        ("/coupons/0/issuances", 422, "invalid"),
        ("/coupons/1/issuances?format=xml", 422, "invalid"),
        ("/coupons/1/issuances?format=", 422, "invalid"),
        ("/coupons/1/issuances?state=new", 422, "invalid"),
        ("/coupons/1/issuances?state=queued", 422, "invalid"),
        ("/coupons/999/report", 404, "unknown_coupon"),
        ("/coupons/x/report", 422, "invalid"),
    ],
)
def test_what_cannot_be_exported_is_a_problem(
    http: httpx.Client, make_coupon: MakeCoupon, path: str, status: int, code: str
) -> None:
    """Before the response begins."""
    make_coupon()
    response = http.get(path)

    assert (response.status_code, response.json()["code"]) == (status, code)


def test_a_coupon_without_requests_is_exported(http: httpx.Client, make_coupon: MakeCoupon) -> None:
    path = f"/coupons/{make_coupon().id}/issuances"

    assert http.get(path).text.count("\r\n") == 1
    assert http.get(path, params={"format": "jsonl"}).text == ""


def test_the_path_has_both_methods(http: httpx.Client, make_coupon: MakeCoupon, redis: Redis) -> None:
    """The batch path takes POST only; HEAD is answered without reading a page for it."""
    redis.flushdb()
    path = f"/coupons/{make_coupon(quantity=1).id}/issuances"

    assert http.put(path).headers["Allow"] == "GET, HEAD, POST"
    assert http.post(path, json={"user_id": 7}).status_code == 202
    head = http.head(path)
    assert (head.status_code, head.content, head.headers["Content-Type"]) == (200, b"", "text/csv; charset=utf-8")
    assert http.head("/coupons/999/issuances").status_code == 404
    assert http.get(path).status_code == 200


def test_no_statement_of_a_large_export_reads_more_than_a_page(store: Engine, many: int) -> None:
    """However many requests the coupon has, and each row comes once."""
    fetched: list[int] = []

    def record(_: object, cursor: Any, statement: str, *__: object) -> None:
        if "BETWEEN" in statement:
            fetched.append(cursor.rowcount)

    event.listen(store, "after_cursor_execute", record)
    pages = IssuanceExporter(store).begin(many, ExportFormat.JSONL)
    lines = sum(page.count(b"\n") for page in pages)

    assert lines == sum(fetched) == _MANY
    assert max(fetched) == EXPORT_PAGE_OFFSETS


def test_an_export_has_what_was_decided_when_it_began(store: Engine, many: int, admin: Engine, log_id: int) -> None:
    """A sale that goes on does not make it longer."""
    pages = IssuanceExporter(store).begin(many, ExportFormat.JSONL)
    lines = next(pages).count(b"\n")
    with admin.begin() as tx:
        tx.execute(_INSERT, {"log": log_id, "coupon": many, "first": _MANY, "last": _MANY + EXPORT_PAGE_OFFSETS})

    assert lines + sum(page.count(b"\n") for page in pages) == _MANY


@pytest.mark.parametrize("analysed", [True, False])
@pytest.mark.parametrize("state", [None, RequestState.REFUSED])
def test_a_page_reads_its_offsets_only(
    store: Engine, many: int, admin: Engine, analysed: bool, state: RequestState | None
) -> None:
    """With the indexes on the coupon each page would read all of its rows."""
    with admin.begin() as tx:
        tx.execute(text("ANALYZE requests") if analysed else _CLEAR_STATISTICS)
    read: list[int] = []

    def record(connection: Connection, _: object, statement: str, *__: object) -> None:
        if "BETWEEN" in statement:
            read.append(connection.execute(_ROWS_READ).scalar_one())

    for when in ("before_cursor_execute", "after_cursor_execute"):
        event.listen(store, when, record)
    next(IssuanceExporter(store).begin(many, ExportFormat.JSONL, state))

    before, after = read
    assert after - before == EXPORT_PAGE_OFFSETS


_CLEAR_STATISTICS = text(
    "SELECT pg_clear_attribute_stats('public', 'requests', attname, false) FROM pg_attribute"
    " WHERE attrelid = 'requests'::regclass AND attnum > 0"
)
_ROWS_READ = text("SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'requests'")


def test_each_step_of_an_export_reads_one_page(
    store: Engine, make_coupon: MakeCoupon, admin: Engine, log_id: int, statements: list[str]
) -> None:
    """Also where the coupon has no requests: between two steps the export pauses, and sees that its client has gone."""
    coupon = make_coupon()
    with admin.begin() as tx:
        for offset in (0, 9 * EXPORT_PAGE_OFFSETS):
            tx.execute(_INSERT, {"log": log_id, "coupon": coupon.id, "first": offset, "last": offset})
    pages = IssuanceExporter(store).begin(coupon.id, ExportFormat.JSONL)
    statements.clear()

    read = [(page.count(b"\n"), len(statements)) for page in pages]

    assert [rows for rows, _ in read] == [1, *8 * [0], 1]
    assert [executed for _, executed in read] == [*range(1, 11)]


@contextmanager
def slow_reader(server: ServerThread, path: str, behind: bytes = b"") -> Iterator[socket.socket]:
    """Read the first rows of an export, and read no further; `behind` is sent after its request."""
    with closing(socket.socket()) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(20)
        connection.connect(server.address)
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() + behind)
        begin = b""
        while b"request-1-" not in begin:
            begin += connection.recv(4096)
        assert begin.startswith(b"HTTP/1.1 200 OK\r\n")
        yield connection


def _read_to_end(connection: socket.socket) -> bytes:
    """Read until the server ends the connection."""
    chunks = []
    try:
        while chunk := connection.recv(1_000_000):
            chunks.append(chunk)
    except ConnectionResetError:
        pass
    return b"".join(chunks)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a client read nothing for longer than any test takes."""
    monkeypatch.setattr(guarded_protocol, "READ_TIMEOUT_SECONDS", 60.0)


@pytest.mark.usefixtures("patient")
def test_slow_readers_hold_no_transaction_and_only_their_places(
    server: ServerThread, http: httpx.Client, many: int, query: Query
) -> None:
    """One export too many is refused at once; the place of a client that has gone is free again."""
    path = f"/coupons/{many}/issuances"
    with ExitStack() as readers:
        first, *_ = [readers.enter_context(slow_reader(server, path)) for _ in range(MAX_EXPORTS)]
        refused = http.get(path)
        eventually(lambda: not query(_TRANSACTIONS))
        verified = http.get(f"/coupons/{many}/report")
        # a reset: what was sent is not read any more
        first.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        first.close()
        again = eventually(lambda: response if (response := http.get(path)).status_code == 200 else None)

    assert (refused.status_code, refused.json()["code"]) == (429, "too_busy")
    assert int(refused.headers["Retry-After"]) > 0
    assert verified.status_code == 200
    assert again.text.count("\r\n") == _MANY + 1


@pytest.mark.usefixtures("patient")
def test_an_export_that_fails_in_the_middle_is_not_taken_for_complete(
    server: ServerThread, http: httpx.Client, many: int, admin: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    """Its connection ends without the last chunk, and one line of the log says why."""
    path = f"/coupons/{many}/issuances"
    with slow_reader(server, path) as connection:
        with _without_rights(admin):
            cut = _read_to_end(connection)
        whole = http.get(path)

    assert f"request-{_MANY - 1}-".encode() not in cut
    assert not cut.endswith(b"0\r\n\r\n")
    (line,) = [record for record in caplog.records if LogEvent.STREAM_CUT in record.getMessage()]
    assert "permission denied" in line.getMessage()
    assert "Traceback" not in caplog.text
    assert whole.text.count("\r\n") == _MANY + 1


@pytest.mark.usefixtures("patient")
def test_a_request_behind_an_export_does_not_keep_its_place(
    server: ServerThread, http: httpx.Client, many: int, admin: Engine
) -> None:
    """The end of the connection ends the request in progress, and not only the last one."""
    path = f"/coupons/{many}/issuances"
    behind = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with ExitStack() as readers:
        cut = [readers.enter_context(slow_reader(server, path, behind)) for _ in range(MAX_EXPORTS)]
        with _without_rights(admin):
            for connection in cut:
                assert not _read_to_end(connection).endswith(b"0\r\n\r\n")

    assert eventually(lambda: http.get(path).status_code == 200)


@contextmanager
def _without_rights(admin: Engine) -> Iterator[None]:
    """Take the service's role the right to read requests during the block."""
    with admin.begin() as tx:
        tx.execute(text("REVOKE SELECT ON requests FROM coupons"))
    try:
        yield
    finally:
        with admin.begin() as tx:
            tx.execute(text("GRANT SELECT ON requests TO coupons"))


@pytest.mark.usefixtures("patient", "http")
def test_a_shutdown_ends_an_export_at_once_and_visibly(server: ServerThread, many: int) -> None:
    with slow_reader(server, f"/coupons/{many}/issuances") as connection:
        server.uvicorn.should_exit = True
        eventually(lambda: server.uvicorn.server_state.connections and _is_draining(server))
        cut = _read_to_end(connection)
        server.join(5)

    assert not server.is_alive()
    assert f"request-{_MANY - 1}-".encode() not in cut
    assert not cut.endswith(b"0\r\n\r\n")


def _is_draining(server: ServerThread) -> bool:
    return all(connection.is_draining() for connection in server.uvicorn.server_state.connections)  # type: ignore[union-attr]
