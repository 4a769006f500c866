"""Celery's settings under Celery's own names; each value that is not a default has its reason beside it.

The work is in rows of PostgreSQL, and the sweep finds rows whose message was lost: no promise depends on these
settings.
"""

from kombu import Exchange, Queue
from kombu.transport import TRANSPORT_ALIASES

from service import config, startup
from service.stream.connection import log_client_error, security_settings
from workers.kafka_transport import raise_if_undelivered
from workers.queues import TOPIC_PREFIX, BeatEntry, Task
from workers.queues import Queue as QueueName
from workers.redis_broker import RedisBroker, connection_settings

# The transport that checks messages, under the schemes by which Flower finds out what the broker is: the setting
# `broker_transport` would replace them. kombu keeps the first transport that it finds for a scheme.
TRANSPORT_ALIASES.update(dict.fromkeys(("redis", "rediss"), "workers.redis_transport:Transport"))
TRANSPORT_ALIASES["sentinel"] = "workers.redis_transport:SentinelTransport"

_redis: RedisBroker | None = None
with startup.exit_on_error():
    _settings = config.load_without_keys()  # beat and Flower need none; the worker reads them when it starts
    if not _settings.celery_over_kafka:
        _redis = connection_settings(_settings.celery_broker_url)

broker_url = _redis.url if _redis else _settings.celery_broker_url
broker_read_url = broker_write_url = broker_url  # Celery prefers the variable CELERY_BROKER_URL to `broker_url`
broker_use_ssl = _redis.use_ssl if _redis else False
broker_connection_retry_on_startup = True
# A worker survives an absent broker. However, a worker with an active task may exit, because kombu 5.7 uses the closed
# connection; the supervisor restarts it.
broker_connection_max_retries = None

if _redis is None:
    _prefix = TOPIC_PREFIX
    broker_transport = "workers.kafka_transport:Transport"
    broker_transport_options = {
        "wait_time_seconds": 2,  # to connect; workers.kafka_transport does not wait for messages
        "polling_interval": 0.05,
        "num_partitions": _settings.topic_partitions,  # the limit on workers that consume one queue in parallel
        "replication_factor": _settings.topic_replication,
        "topic_config": {"retention.ms": 3_600_000},  # an old message is of no use: the sweep has sent it again
        "kafka_common_config": {
            **security_settings(_settings),
            "log_level": 0,
            "error_cb": log_client_error,
            "reconnect.backoff.max.ms": 1_000,
        },
        "kafka_producer_config": {"message.timeout.ms": 2_000, "on_delivery": raise_if_undelivered},
        "kafka_consumer_config": {
            "session.timeout.ms": 6_000,  # after this another worker consumes the queues of a killed one
            "topic.metadata.refresh.interval.ms": 1_000,  # topics that another process has just created are seen soon
        },
    }
else:
    _prefix = ""
    # A demoted Redis answers READONLY: connect again, as after a lost connection. By default the worker exits.
    broker_channel_error_retry = True
    broker_transport_options = {
        # seconds after which the task of a killed worker is redelivered; above the longest task and lease
        "visibility_timeout": 8,
        "unacked_restore_interval": 1,  # both together: checked every second; by default every hundred
        "unacked_restore_throttle": 1,
        "socket_timeout": 5,  # a connection that drops all packets fails; by default it never does
        "socket_connect_timeout": 2,
        "socket_keepalive": True,
        "health_check_interval": 10,  # a half-open connection is dropped, so that consuming goes on by itself
        **_redis.transport_options,
    }

# Direct queues, and routes that name only the queue: publishing through a named exchange depends on bindings kept in
# Redis, and without them the message is lost without an error.
_names = {name: _prefix + name.value for name in QueueName}
task_queues = [Queue(name, Exchange(name, "direct"), name) for name in _names.values()]
task_routes = {task.value: {"queue": _names[task.queue]} for task in Task}
task_default_queue = _names[QueueName.MAINTENANCE]
task_create_missing_queues = False  # a misspelt queue is an error

task_acks_late = True  # acknowledged after the work: a worker killed before that loses nothing
task_retry_on_worker_lost = True  # a killed child counts as a retry; the alternative is to redeliver without end
task_annotations = {"*": {"default_retry_delay": 1}}  # that retry's delay in seconds; all others set their own
task_acks_on_failure = True  # a failed task is not delivered again; the sweep finds its row
worker_prefetch_multiplier = 1  # no task waits behind another in a worker that may be killed
task_ignore_result = True
task_time_limit = 7  # no soft limit: its exception during a decision would look like a request's own failure
task_publish_retry_policy = {"max_retries": 3, "interval_start": 0.1, "interval_step": 0.2, "interval_max": 0.5}

task_serializer = "json"
accept_content = ["json"]  # a pickle is refused
imports = ["workers.tasks.retry", "workers.tasks.dead_letters", "workers.tasks.notify", "workers.tasks.maintenance"]

worker_send_task_events = not _settings.celery_over_kafka  # Flower shows these; Kafka has no fanout for them (ADR 0010)
# If this were on, Flower would show each sweep as a pending task, because the sweep sends no other events.
task_send_sent_event = False
task_track_started = True
worker_hijack_root_logger = False  # one form of log line for all processes
worker_soft_shutdown_timeout = 7.0  # running tasks may end; those not started go back to their queue
worker_enable_soft_shutdown_on_idle = True

beat_scheduler = "celery.beat:Scheduler"  # intervals only: no state file to keep
beat_schedule = {
    beat.value: {
        "task": beat.task.value,
        "schedule": beat.every_seconds,
        "options": {"expires": beat.every_seconds * 5},
    }
    for beat in BeatEntry
}
