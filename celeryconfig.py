"""Celery's settings, plain names only; each value that is not a default says why it stands.

Rows in PostgreSQL are the truth and beat's sweep finds what was lost: no setting here carries a promise.
"""

from kombu import Exchange, Queue

from service import config, start
from workers.names import Beat, Task
from workers.names import Queue as Name

with start.or_say_why():
    _settings = config.load()

broker_url = _settings.celery_broker_url
broker_connection_retry_on_startup = True
broker_connection_max_retries = None  # a worker outlives its broker's absence
broker_transport_options = {
    "visibility_timeout": 8,  # a killed worker's task is delivered again after it; above the longest task and its lease
    "unacked_restore_interval": 1,  # both together: looked for every second; by default every hundred
    "unacked_restore_throttle": 1,
    "socket_timeout": 5,  # a black hole ends; by default it never does
    "socket_connect_timeout": 2,
    "socket_keepalive": True,
    "health_check_interval": 10,  # a half-open connection is dropped, so that consuming goes on by itself
}

# Direct queues, and routes that name only the queue: publishing through a named exchange depends on bindings kept in
# Redis, and without them the message vanishes without an error.
task_queues = [Queue(name.value, Exchange(name.value, "direct"), name.value) for name in Name]
task_routes = {task.value: {"queue": task.queue.value} for task in Task}
task_default_queue = Name.MAINTENANCE.value
task_create_missing_queues = False  # a misspelt queue is an error

task_acks_late = True  # acknowledged after the work: a worker killed before that loses nothing
task_retry_on_worker_lost = True  # a killed child counts as a retry; redelivering for ever would be the alternative
task_acks_on_failure = True  # a failed task is done with; its row brings it back
worker_prefetch_multiplier = 1  # no task waits behind another in a worker that may die
task_ignore_result = True
task_time_limit = 7  # no soft limit: its exception in mid-decision would look like a request's own failure
task_publish_retry_policy = {"max_retries": 3, "interval_start": 0.1, "interval_step": 0.2, "interval_max": 0.5}

task_serializer = "json"
accept_content = ["json"]  # a pickle is refused
imports = ["workers.retry", "workers.dead_letter", "workers.notify", "workers.maintenance"]

worker_send_task_events = True  # Flower lives on events
task_send_sent_event = True
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
    for beat in Beat
}
