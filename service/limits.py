"""Every limit that a caller, a record or an operator can meet; tuning values of one module stay in that module."""

#: largest coupon, user or dead-letter id: PostgreSQL bigint, Java long
MAX_ID = 2**63 - 1
#: largest user id that callers may name: JavaScript's Number.MAX_SAFE_INTEGER. Ids that the service counts stay below.
MAX_SAFE_ID = 2**53 - 1
#: largest quantity or waitlist of a coupon: PostgreSQL integer
MAX_QUANTITY = 2**31 - 1
#: 9999-01-01T00:00:00Z, which the database driver can still convert
MAX_TIMESTAMP_MS = 253_370_764_800_000

#: characters of a coupon's name
MAX_NAME_LENGTH = 200
#: bytes of a request's line and headers
MAX_HEAD_BYTES = 16_384
#: bytes of a request body
MAX_BODY_BYTES = 16_384
#: seconds in which the whole head of a request must arrive; also how long a new connection may be silent
HEAD_TIMEOUT_SECONDS = 5.0
#: seconds in which the whole body of a request must arrive
BODY_TIMEOUT_SECONDS = 5.0
#: seconds that a connection may be idle after a response; to the API KEEP_ALIVE_SECONDS, while it is not crowded
IDLE_TIMEOUT_SECONDS = 5.0
#: seconds in which a client must read a part of its responses
READ_TIMEOUT_SECONDS = 5.0
#: requests that may wait on a connection while an earlier one is answered
MAX_PIPELINED = 100
#: open connections of one process; fewer if the process may not open so many files
MAX_CONNECTIONS = 20_000
#: days for which a caller's Idempotency-Key is known at least
IDEMPOTENCY_KEY_DAYS = 7
#: open event streams of one user in one process
MAX_STREAMS_PER_USER = 6
#: open event streams of one process; at most half of the connections that it may have
MAX_STREAMS = 10_000
#: seconds after which a stream ends at the latest, so that the client connects again, maybe to another process, and
#: its credentials are verified again
MAX_STREAM_SECONDS = 3_600.0
#: bytes of a stream that may wait in the server's kernel and process because the client does not read
MAX_UNREAD_STREAM_BYTES = 16_384
#: seconds for which an operator's session in a browser is valid: a working day
MAX_SESSION_SECONDS = 43_200
#: failed logins from one address, and in all, that one process answers and logs in a minute; it refuses the others
FAILED_LOGINS_PER_ADDRESS, FAILED_LOGINS_OF_ALL = 10, 60
#: open streams of the dashboard of one process
MAX_DASHBOARD_STREAMS = 100
#: coupons that the dashboard shows with every snapshot
MAX_DASHBOARD_COUPONS = 30
#: traces that a process begins in a second: callers can ask for one with each request
MAX_TRACES_PER_SECOND = 100
#: items of one page of a list
MAX_PAGE_SIZE = 500
#: characters of each error of a dead letter in a list
MAX_LISTED_ERROR_LENGTH = 200
#: actions shown with a dead letter: the latest ones
MAX_ACTIONS_SHOWN = 100
#: points of the series of a coupon report
MAX_REPORT_POINTS = 1_000
#: exports that one process streams at the same time
MAX_EXPORTS = 4
#: offsets of a partition that one statement of an export reads, and so the most rows of a page
EXPORT_PAGE_OFFSETS = 2_000
#: dead letters of one replay
MAX_REPLAY_SIZE = 1_000
#: bytes of the records that one transaction of a replay reads; a dry run is one transaction
MAX_REPLAY_BYTES = 33_554_432

#: characters of an error that is stored with a request or a dead letter
MAX_ERROR_LENGTH = 2_000
#: bytes of a record's value that can be a request; a longer one is poison
MAX_VALUE_BYTES = 65_536
#: bytes of a record in ISSUE_COUPON: the default of Kafka's brokers
MAX_RECORD_BYTES = 1_048_588
#: bytes of a record in ISSUE_COUPON.dlt: the original record and the headers that describe its failure
MAX_DEAD_LETTER_BYTES = 2_097_152

#: seconds for which Redis keeps a coupon that had already ended when the gate was filled for it; GATE_KEEP_SECONDS if
#: that is less
ENDED_FILL_KEEP_SECONDS = 120

#: seconds in which a key of request ids ends at the earliest: each process reads the register every five
MIN_KEY_END_SECONDS = 60
