"""Sends several statements to PostgreSQL as one message, on a connection that one thread keeps for itself.

A transaction of the ordinary kind waits for the answer to each statement, and takes a connection from the pool, which
checks it with a statement more. Here the statements are prepared once, and a transaction has as many round trips as
messages.
"""

import re
import select
import time
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime

import psycopg
from psycopg import Connection as Driver
from psycopg import generators
from psycopg.abc import PQGen
from psycopg.adapt import PyFormat, Transformer
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus, Format, TransactionStatus
from psycopg.pq.abc import PGresult
from sqlalchemy import Engine, TextClause, event, text

from service.store.arrays import encode_bigints
from service.store.engine import MAX_CONNECTION_SECONDS

#: After this PostgreSQL ends the transaction of a process that is frozen while it sends a message: the locks are taken,
#: and idle_in_transaction_session_timeout counts between messages only. A batch that takes longer is written the other
#: way.
TRANSACTION_SECONDS = 10

#: How the statements are planned: once for the connection, since planning them for each batch costs as much as a small
#: batch. A plan that is made while a table is small must be right when it is large: no table is read as a whole, and
#: rows are found one by one in an index.
_PLANS: Mapping[str, str] = {
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}

#: A statement and the values of its parameters: numbers, times and texts; lists of those and of bytes; numbers as an
#: array; bytes alone, which are a value in PostgreSQL's binary format.
Call = tuple["PreparedStatement", Mapping[str, object]]
#: a row of a result: the values as PostgreSQL writes them as text
Row = tuple[bytes, ...]

_PARAMETER = re.compile(r"(?<![:\w]):(\w+)(?!:)")
_OPEN = (TransactionStatus.INTRANS, TransactionStatus.INERROR)


class TransactionTooLong(Exception):
    """The transaction took longer than TRANSACTION_SECONDS, and was rolled back."""


class PreparedStatement:
    """A statement of this package in the form in which a session prepares it: its parameters have numbers."""

    def __init__(self, name: str, statement: TextClause) -> None:
        self.name = name.encode()
        self._parameters = list(dict.fromkeys(_PARAMETER.findall(statement.text)))
        numbers = {parameter: f"${number}" for number, parameter in enumerate(self._parameters, 1)}
        self.sql = _PARAMETER.sub(lambda match: numbers[match[1]], statement.text).encode()

    def encode(self, values: Mapping[str, object], driver: Driver) -> tuple[list[bytes | None], list[Format]]:
        """Return the parameters in their order, each with its format."""
        encoded = [_encode(values[parameter], driver) for parameter in self._parameters]
        return [value for value, _ in encoded], [form for _, form in encoded]


def _encode(value: object, driver: Driver) -> tuple[bytes | None, Format]:
    if isinstance(value, bytes):
        return value, Format.BINARY
    if isinstance(value, array):
        return encode_bigints(value), Format.BINARY
    if isinstance(value, list):
        dumped = Transformer(driver).get_dumper(value, PyFormat.TEXT).dump(value)
        return None if dumped is None else bytes(dumped), Format.TEXT
    return (value.isoformat() if isinstance(value, datetime) else str(value)).encode(), Format.TEXT


#: the isolation level of the pool's transactions; the database or the role may have another default
BEGIN = PreparedStatement("BEGIN", text("BEGIN ISOLATION LEVEL READ COMMITTED"))
COMMIT, _ROLLBACK = (PreparedStatement(word, text(word)) for word in ("COMMIT", "ROLLBACK"))


class Pipeline:
    """A connection to PostgreSQL outside the engine's pool, with the same settings. It is opened at first use.

    A message ends with Sync. One that ends with Flush, as psycopg's own pipelines do, would leave a transaction that no
    timeout ends while the client is silent.
    """

    def __init__(self, engine: Engine, statements: Sequence[PreparedStatement]) -> None:
        """`statements` are prepared when the connection is opened. It is closed when the engine is disposed of."""
        self._engine = engine
        self._statements = (BEGIN, COMMIT, _ROLLBACK, *statements)
        self._driver: Driver | None = None
        self._replace_at = 0.0
        #: statements of the last message whose results were not received
        self._pending = 0
        event.listen(engine, "engine_disposed", lambda _: self._close())

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Run the block, whose first message has BEGIN; roll back unless one with COMMIT was executed.

        After an error of the server that leaves the block as such the connection is closed: it may be read-only now, or
        have lost its prepared statements, and says so only with its answers. Raises the driver's errors, and
        TransactionTooLong.
        """
        if not self._is_usable():
            self._close()
            self._driver = self._open()
        try:
            yield
        except psycopg.errors.TransactionTimeout as error:
            self._close()
            raise TransactionTooLong from error
        except psycopg.Error:
            self._close()
            raise
        finally:
            self._end()

    def send(self, *calls: Call) -> None:
        """Send statements as one message. After a statement that fails, the server ignores those that follow."""
        driver = self._require_driver()
        for statement, values in calls:
            parameters, formats = statement.encode(values, driver)
            driver.pgconn.send_query_prepared(statement.name, parameters, formats)
        driver.pgconn.pipeline_sync()
        driver.wait(generators.send(driver.pgconn))
        self._pending = len(calls)

    def receive(self) -> list[list[Row]]:
        """Return the rows of each statement of the last message; raise the error of the first one that failed."""
        driver, count = self._require_driver(), self._pending
        results = driver.wait(_results(driver, count))
        self._pending = 0
        for result in results:
            if result.status == ExecStatus.FATAL_ERROR:
                raise error_from_result(result)
        if len(results) < count:
            raise psycopg.OperationalError("the connection was lost while a message was answered")
        return [_rows(result) for result in results]

    def _require_driver(self) -> Driver:
        assert self._driver is not None, "call it within transaction()"
        return self._driver

    def _is_usable(self) -> bool:
        """Return whether the connection is open and not too old. One on which the server has sent something is not.

        A server that stops, or that becomes read-only, says so on an idle connection.
        """
        if self._driver is None or time.monotonic() > self._replace_at:
            return False
        unread = select.poll()
        unread.register(self._driver.pgconn.socket, select.POLLIN)
        return not unread.poll(0)

    def _open(self) -> Driver:
        pooled = self._engine.raw_connection()  # checked by the pool
        driver = pooled.driver_connection
        assert isinstance(driver, Driver)
        pooled.detach()
        try:
            driver.autocommit = True
            for name, value in {"transaction_timeout": f"{TRANSACTION_SECONDS}s", **_PLANS}.items():
                driver.execute("SELECT set_config(%s, %s, false)", (name, value))
            for statement in self._statements:
                prepared = driver.pgconn.prepare(statement.name, statement.sql)
                if prepared.status != ExecStatus.COMMAND_OK:
                    raise error_from_result(prepared)
            driver.pgconn.enter_pipeline_mode()
        except BaseException:
            driver.close()
            raise
        self._replace_at = time.monotonic() + MAX_CONNECTION_SECONDS
        return driver

    def _end(self) -> None:
        status = self._driver.pgconn.transaction_status if self._driver else TransactionStatus.IDLE
        if status == TransactionStatus.IDLE and not self._pending:
            return
        if status in _OPEN and not self._pending:
            with suppress(psycopg.Error):
                self.send((_ROLLBACK, {}))
                self.receive()
                return
        self._close()

    def _close(self) -> None:
        driver, self._driver = self._driver, None
        if driver:
            driver.close()


def _results(driver: Driver, count: int) -> PQGen[list[PGresult]]:
    """Wait for the results of `count` statements and of the Sync after them; fewer if the connection is lost."""
    results: list[PGresult] = []
    try:
        for _ in range(count + 1):
            results += yield from generators.fetch_many(driver.pgconn)
    except psycopg.DatabaseError:
        if not any(result.status == ExecStatus.FATAL_ERROR for result in results):
            raise
    return results[:count]


def _rows(result: PGresult) -> list[Row]:
    columns = range(result.nfields)
    return [tuple(result.get_value(row, column) or b"" for column in columns) for row in range(result.ntuples)]
