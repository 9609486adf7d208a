"""The Celery project that the demo and the end-to-end tests run.

It carries the mistake this module is for: `result_expires=None`, so that no
result ever gets a TTL from Celery. Everything else is an ordinary project
that keeps its broker and its results in one Redis.
"""

import os
import time

from celery import Celery

REDIS_URL = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0")

app = Celery("celery_app", broker=REDIS_URL, backend=REDIS_URL)
app.conf.update(
    result_expires=None,
    task_track_started=True,
    task_default_queue="celery",
    task_routes={"maintenance.*": {"queue": "maintenance"}},
    timezone="UTC",
    broker_connection_retry_on_startup=True,
    # Short, so that a wait that goes wrong shows as a failure, not as a hang.
    broker_transport_options={"socket_timeout": 10, "socket_connect_timeout": 5},
)

# Only where a test asks for it: other names for what is not acknowledged yet.
if os.environ.get("UNACKED") == "1":
    app.conf.broker_transport_options.update(
        unacked_key="taken",
        unacked_index_key="taken_at",
        unacked_mutex_key="taken_mutex",
    )

# Only where a test asks for it: messages as Celery 3 and older sent them.
if os.environ.get("TASK_PROTOCOL"):
    app.conf.task_protocol = int(os.environ["TASK_PROTOCOL"])

# Only where a test asks for it: the periodic tasks that stock beat or RedBeat
# publishes, once a second.
if os.environ.get("BEAT_SCHEDULE") == "1":
    app.conf.beat_schedule = {
        "cleanup-orphaned-jobs": {
            "task": "maintenance.cleanup_orphaned_jobs",
            "schedule": 1.0,
        },
    }
if os.environ.get("REDBEAT") == "1":
    # 5 x beat_max_loop_interval is RedBeat's own default for the lock.
    app.conf.redbeat_redis_url = REDIS_URL
    app.conf.beat_max_loop_interval = 1
    app.conf.redbeat_lock_timeout = 5


@app.task(name="shop.add")
def add(x, y):
    return x + y


@app.task(name="shop.total")
def total(numbers):
    """Body of the chords."""
    return sum(numbers)


@app.task(bind=True, name="shop.flaky", max_retries=3, default_retry_delay=0)
def flaky(self, x):
    """Fails twice, then succeeds: leaves RETRY twice on the way."""
    if self.request.retries < 2:
        raise self.retry(countdown=0.05)
    return x


@app.task(bind=True, name="shop.report")
def report(self, steps):
    """Writes a custom state a few times, each one a plain SET."""
    for step in range(steps):
        self.update_state(state="PROGRESS", meta={"done": step, "of": steps})
    return steps


@app.task(name="shop.broken")
def broken(x):
    raise ValueError(f"no such order: {x}")


@app.task(name="shop.quiet", ignore_result=True)
def quiet():
    """Its end shows nowhere in Redis."""


@app.task(name="shop.slow")
def slow(seconds):
    time.sleep(seconds)
    return seconds


@app.task(name="shop.late", acks_late=True)
def late(seconds):
    """Acknowledged when it is done: a killed worker leaves it in `unacked`."""
    time.sleep(seconds)
    return seconds


@app.task(name="maintenance.cleanup_orphaned_jobs")
def cleanup_orphaned_jobs():
    return 0
