"""The Celery project of the scenarios: two periodic tasks in `maintenance`.

What is unlike an ordinary project stands in the variable SCENE, as JSON, so that
worker, beat and web processes of one scenario agree:

    schedule   name of a periodic task -> seconds between its runs
    behaviour  what the periodic tasks do: work, fail, slow, forget
    prefix     global_keyprefix of the broker
    priority   the periodic tasks' priority
"""

import json
import os
import time

from celery import Celery

SCENE = json.loads(os.environ.get("SCENE", "{}"))
REDIS_URL = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0")
BEHAVIOUR = SCENE.get("behaviour", "work")
SLOW_S = 4

if "DJANGO_SETTINGS_MODULE" in os.environ:
    import django

    django.setup()

app = Celery("beatapp", broker=REDIS_URL, backend=REDIS_URL)
transport = {"socket_timeout": 10, "socket_connect_timeout": 5}
if "prefix" in SCENE:
    transport["global_keyprefix"] = SCENE["prefix"]
options = {}
if "priority" in SCENE:
    transport["queue_order_strategy"] = "priority"
    options["priority"] = SCENE["priority"]
app.conf.update(
    task_default_queue="celery",
    task_routes={"maintenance.*": {"queue": "maintenance"}},
    timezone="UTC",
    broker_connection_retry_on_startup=True,
    broker_transport_options=transport,
    # For RedBeat. The lock keeps its default of 25 minutes: a beat that dies
    # leaves it behind, as in the field.
    redbeat_redis_url=REDIS_URL,
    beat_schedule={
        task.rpartition(".")[2]: {"task": task, "schedule": float(seconds), "options": options}
        for task, seconds in SCENE.get("schedule", {}).items()
    },
)


def periodic(name):
    @app.task(name=name, ignore_result=BEHAVIOUR == "forget")
    def work():
        if BEHAVIOUR == "fail":
            raise ValueError("order 4711 of Mrs. Miller cannot be read")
        if BEHAVIOUR == "slow":
            time.sleep(SLOW_S)
        return 0

    return work


cleanup_orphaned_jobs = periodic("maintenance.cleanup_orphaned_jobs")
cleanup_celery_results = periodic("maintenance.cleanup_celery_results")


@app.task(name="shop.add")
def add(x, y):
    return x + y


@app.task(name="shop.broken")
def broken():
    raise ValueError("order 4711 of Mrs. Miller cannot be read")


@app.task(name="shop.forget", ignore_result=True)
def forget():
    return 0
