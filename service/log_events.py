"""Every event that this service logs: a fixed name to search for; what varies is in fields."""

from enum import StrEnum


class LogEvent(StrEnum):
    """The names; a comment says when the event is logged and, where someone must act, what to do."""

    # any process
    #: PostgreSQL or Kafka does not answer at start, or no issuer has the new key with which the process would sign;
    #: the process tries again until it does
    START_WAITING = "start.waiting"
    #: the API has no authentication; do not expose it
    AUTHENTICATION_OFF = "authentication.off"
    #: the Kafka client reports a problem with a broker; it reconnects by itself
    KAFKA_CLIENT_ERROR = "kafka.client_error"
    #: a topic was missing and has been created
    TOPIC_CREATED = "topic.created"
    #: Kafka refuses the right to read a topic's settings (DescribeConfigs): grant it, or compare by hand the settings
    #: that `reason` names
    TOPIC_SETTINGS_UNKNOWN = "topic.settings_unknown"
    #: Redis refuses the right to read its eviction policy (INFO), which must be noeviction: check it by hand
    GATE_POLICY_UNKNOWN = "gate.policy_unknown"
    #: the topic is not the open log of the database, or too small: nothing is accepted or decided
    LOG_REPLACED = "log.replaced"
    #: the topic is the open log again, or another log was adopted
    LOG_OPEN = "log.open"
    #: Kafka did not answer, so the topic was not compared with the open log; tried again
    LOG_NOT_COMPARED = "log.not_compared"
    #: an operator adopted the topic as the open log, and the earlier one is closed
    LOG_ADOPTED = "log.adopted"
    #: an operator recorded deleted records as lost
    RECORDS_LOST = "log.records_lost"

    # metrics
    #: a part did not answer a scrape of Prometheus, so its metrics are absent; logged once, until it answers again
    PART_NOT_READ = "metrics.part_not_read"
    #: the issuer could not publish its health in Redis; tried again
    HEALTH_NOT_PUBLISHED = "issuer.health_not_published"

    # HTTP servers
    #: logged at the start of the API and the issuer: the connections that it may have, and the files that it may open.
    #: A warning if these are few: raise the hard limit (LimitNOFILE of systemd, ulimits of Docker)
    CONNECTIONS_ALLOWED = "http.connections_allowed"
    #: requests that the server answered before any route saw them, or whose connection was one too many: how many since
    #: the last such line, by status
    REQUESTS_REJECTED = "http.requests_rejected"

    # API
    #: a request was answered with a 5xx; `problem_id` is the `request_id` in the body of the response
    SERVER_ERROR = "api.server_error"
    #: a handler raised an exception that no rule covers: a defect, report it with the traceback. `problem_id` is the
    #: `request_id` in the body of the response
    UNHANDLED_EXCEPTION = "api.unhandled_exception"
    #: a response that is sent page by page ended early: a page could not be read, or the process shuts down. Its
    #: connection was closed without the end of the response, so the client knows; `reason` says why. Send it again
    STREAM_CUT = "api.stream_cut"
    #: PostgreSQL, Kafka or Redis did not respond to the API in time, the producer's queue was full, too many requests
    #: waited, or the gate was being filled; `reason` says which
    PART_UNAVAILABLE = "api.part_unavailable"
    #: more than MAX_UNDECIDED records wait for a decision, so requests get 503: start another issuer, or find out why
    #: the issuer does not decide (its `/readyz`)
    BACKLOG_FULL = "backlog.full"
    #: requests are accepted again
    BACKLOG_REDUCED = "backlog.reduced"
    #: the database did not answer when events were to be read for the open streams, which stay open; tried again
    STREAMS_DELAYED = "streams.delayed"
    #: an overview for the dashboard could not be read; tried again after a second
    OVERVIEW_NOT_READ = "dashboard.overview_not_read"
    #: an operator has logged in with the API key `key`
    SESSION_OPENED = "session.opened"
    #: somebody tried to log in with a key that is not valid, or not an operator's
    SESSION_REFUSED = "session.refused"
    #: events are read again, after so many failures
    STREAMS_RESUMED = "streams.resumed"
    #: the producer had a fatal error; the process exits and is restarted
    PRODUCER_FATAL = "producer.fatal"
    #: the process stopped with records unacknowledged; their callers got no 202
    PRODUCER_UNACKNOWLEDGED = "producer.unacknowledged"
    #: the gate did not take an offset, a released seat or progress. A lost offset is never recorded again, and
    #: `maintenance.release_expired` resolves the seat; the next batch publishes progress again
    GATE_UPDATE_LOST = "gate.update_lost"
    #: a cold coupon was loaded into the gate
    GATE_FILLED = "gate.filled"
    #: the Redis server lost state. The coupons filled before are now cold; the API fills them from the database and the
    #: log
    GATE_RESET = "gate.reset"
    #: coupons that ended long ago were removed from the gate; a request for one of them fills it again
    GATE_EVICTED = "gate.evicted"
    #: a key of the gate had a type that this service never gives it and was deleted: something else writes to the same
    #: database of the Redis server. Give the gate a database of its own
    GATE_KEY_DELETED = "gate.key_deleted"
    #: Redis refuses the right to find out whether the gate lost its state, so a lost pause or closure stays lost: grant
    #: the right that `reason` names
    GATE_CHECK_REFUSED = "gate.check_refused"

    # callers
    #: the public keys of the tokens' issuer could not be read; the last ones are used, tried again
    KEY_SET_NOT_READ = "key_set.not_read"
    #: the API keys could not be read; those read before are used for some minutes, tried again
    API_KEYS_NOT_READ = "api_keys.not_read"

    #: the register of the keys of request ids could not be read; the ends read before are used, tried again
    KEY_REGISTER_NOT_READ = "request_id_keys.not_read"

    # issuer
    PARTITIONS_ASSIGNED = "partitions.assigned"
    PARTITIONS_REVOKED = "partitions.revoked"
    #: the offset in the database is outside the log: the partition stays stopped until `coupons log skip` has moved it
    PARTITION_STOPPED = "partition.stopped"
    #: the consumer cannot seek yet; tried again in the next iteration
    PARTITION_SEEK_FAILED = "partition.seek_failed"
    #: records carry a request id that no registered key signed, so they are dead letters: somebody without a key
    #: writes to the topic. `count` of them in one batch; `first` is the first one's partition and offset
    REQUEST_IDS_UNVERIFIED = "request_ids.unverified"
    #: the database refused a row of a plain batch: the batch was rolled back and is decided record by record
    BATCH_NOT_PLAIN = "batch.not_plain"
    #: a system failure: the batch was rolled back and is read again
    ISSUER_PAUSED = "issuer.paused"
    #: the offsets could not be read from the database; tried again
    CHECKPOINTS_UNREADABLE = "issuer.checkpoints_unreadable"
    #: another issuer advanced these partitions; their records were dropped
    PARTITIONS_FENCED = "partitions.fenced"
    #: the consumer failed and is replaced by a new one
    CONSUMER_REPLACED = "consumer.replaced"
    #: the consumer reports an error that concerns no record
    CONSUMER_ERROR = "consumer.error"
    #: Kafka's committed offsets are behind; only lag tools use them
    KAFKA_COMMIT_FAILED = "kafka.commit_failed"
    #: the watermark was not advanced. Lookups report lost requests as `queued` for longer, and their gate seats stay
    #: taken
    WATERMARK_DELAYED = "watermark.delayed"
    #: messages after a commit were dropped or failed; the sweep finds their rows
    MESSAGES_LOST = "messages.lost"
    #: an alert began; its text says what to do
    ALERT_RAISED = "alert.raised"
    ALERT_CLEARED = "alert.cleared"
    #: the periodic check failed; tried again
    ALERT_CHECK_FAILED = "alert.check_failed"
    #: the API could not derive the alerts of the system; tried again
    ALERTS_NOT_DERIVED = "alert.not_derived"

    # dead letters
    #: one record read from the dead-letter topic
    DEAD_LETTER_RECEIVED = "dead_letter.received"
    #: records of the dead-letter topic could not be stored; tried again until they are
    DEAD_LETTERS_NOT_STORED = "dead_letters.not_stored"
    #: some dead letters could not be produced; the sweep tries again
    DEAD_LETTERS_NOT_FORWARDED = "dead_letters.not_forwarded"
    #: the listener's consumer failed and is replaced
    DEAD_LETTER_LISTENER_FAILED = "dead_letters.listener_failed"

    # Celery
    #: a worker begins a task; `source` says whether the broker or the sweep sent it
    TASK_STARTED = "task.started"
    #: a message of Celery's broker was dropped: it does not have the form of this service's messages, or its receiver
    #: failed. Something else writes to the broker: give Celery one of its own. The sweep repeats what was lost
    MESSAGE_DROPPED = "celery.message_dropped"
