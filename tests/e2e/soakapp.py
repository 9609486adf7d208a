"""The Celery project of the soak: every run of a task is counted where it can be
compared with what was published."""

import os

from celery import Celery

REDIS_URL = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0")
RAN = "soak:ran"

app = Celery("soakapp", broker=REDIS_URL, backend=REDIS_URL)
app.conf.update(
    result_expires=None,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=2,
    timezone="UTC",
    broker_connection_retry_on_startup=True,
    # A task that ran and was not acknowledged runs again: that is counted as well.
    broker_transport_options={
        "visibility_timeout": 10,
        "socket_timeout": 10,
        "socket_connect_timeout": 5,
    },
    result_backend_transport_options={"retry_policy": {"timeout": 30.0}},
    beat_schedule={"tick": {"task": "soak.tick", "schedule": 1.0}},
)


@app.task(name="soak.work", autoretry_for=(Exception,), max_retries=None, retry_backoff=0.2)
def work(number):
    app.backend.client.sadd(RAN, number)
    return {"number": number, "text": "x" * 200}


@app.task(name="soak.tick")
def tick():
    return 0
