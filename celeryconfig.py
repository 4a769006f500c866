"""Celery's settings, plain names only; each value that is not a default says why it stands.

Rows in PostgreSQL are the truth and beat's sweep finds what was lost: no setting here carries a promise.
"""

from kombu import Exchange, Queue

from service import config, startup
from workers.kafka_transport import raise_if_undelivered
from workers.queues import BeatEntry, Task
from workers.queues import Queue as Name

with startup.exit_on_error():
    _settings = config.load()

broker_url = _settings.celery_broker_url
broker_connection_retry_on_startup = True
# A worker outlives its broker's absence. One that held a task then may end instead (kombu 5.7 puts the message back
# through a connection that is gone) and is started again like any process that ended.
broker_connection_max_retries = None

if _settings.celery_over_kafka:
    _prefix = "coupon.celery."  # a queue is a topic there, beside those of others
    broker_transport = "workers.kafka_transport:Transport"
    broker_transport_options = {
        "wait_time_seconds": 2,  # to connect; this transport does not wait for messages
        "polling_interval": 0.05,
        "num_partitions": _settings.topic_partitions,  # a queue has at most as many workers side by side
        "replication_factor": _settings.topic_replication,
        "topic_config": {"retention.ms": 3_600_000},  # an old hint helps nobody: the sweep has sent it again
        "kafka_common_config": {"log_level": 0, "reconnect.backoff.max.ms": 1_000},
        "kafka_producer_config": {"message.timeout.ms": 2_000, "on_delivery": raise_if_undelivered},
        "kafka_consumer_config": {
            "session.timeout.ms": 6_000,  # a killed worker's queues are another's after it
            "topic.metadata.refresh.interval.ms": 1_000,  # whoever comes first makes the topics: they are seen at once
        },
    }
else:
    _prefix = ""
    broker_transport_options = {
        "visibility_timeout": 8,  # a killed worker's task is delivered again after it; above the longest task and lease
        "unacked_restore_interval": 1,  # both together: looked for every second; by default every hundred
        "unacked_restore_throttle": 1,
        "socket_timeout": 5,  # a black hole ends; by default it never does
        "socket_connect_timeout": 2,
        "socket_keepalive": True,
        "health_check_interval": 10,  # a half-open connection is dropped, so that consuming goes on by itself
    }

# Direct queues, and routes that name only the queue: publishing through a named exchange depends on bindings kept in
# Redis, and without them the message vanishes without an error.
_names = {name: _prefix + name.value for name in Name}
task_queues = [Queue(name, Exchange(name, "direct"), name) for name in _names.values()]
task_routes = {task.value: {"queue": _names[task.queue]} for task in Task}
task_default_queue = _names[Name.MAINTENANCE]
task_create_missing_queues = False  # a misspelt queue is an error

task_acks_late = True  # acknowledged after the work: a worker killed before that loses nothing
task_retry_on_worker_lost = True  # a killed child counts as a retry; redelivering for ever would be the alternative
task_annotations = {"*": {"default_retry_delay": 1}}  # that retry's delay in seconds; all others name their own
task_acks_on_failure = True  # a failed task is done with; its row brings it back
worker_prefetch_multiplier = 1  # no task waits behind another in a worker that may die
task_ignore_result = True
task_time_limit = 7  # no soft limit: its exception in mid-decision would look like a request's own failure
task_publish_retry_policy = {"max_retries": 3, "interval_start": 0.1, "interval_step": 0.2, "interval_max": 0.5}

task_serializer = "json"
accept_content = ["json"]  # a pickle is refused
imports = ["workers.tasks.retry", "workers.tasks.dead_letters", "workers.tasks.notify", "workers.tasks.maintenance"]

worker_send_task_events = task_send_sent_event = not _settings.celery_over_kafka  # Flower lives on them; see 0010
task_track_started = True
worker_hijack_root_logger = False  # one form of log line for all processes
worker_soft_shutdown_timeout = 7.0  # running tasks may end; those not begun go back to their queue
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
