#!/usr/bin/env python3
"""Makes the seeds of the fuzz targets anew: what real Celery, kombu and RedBeat write
into a throw-away Redis, and the words that README documents.

Usage: target/venv/celery-5.7/bin/python fuzz/seeds.py     (needs the built module)
"""

import json
import shutil
import sys
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT / "examples"))

from celery import Celery, chord  # noqa: E402
from celery.schedules import crontab, schedule  # noqa: E402
from kombu import Queue  # noqa: E402
from local_redis import LocalRedis  # noqa: E402
from redis import Redis  # noqa: E402

SEEDS = HERE / "seeds"
SERIALIZERS = ("json", "pickle", "msgpack", "yaml")
COMMANDS = """
BEATSTATUS VERBOSE
CANCEL 12
FIXTTL TTL 1h JITTER 5% FROMDONE MAXAGE 0 CLASS lock chord MATCH a*[b-d]? DB 0 LIMIT 1 DRYRUN ASYNC
FIXTTL CLASS queue ALLDBS
KEYS 0 CLASS queue NOTTL OLDERTHAN 1h MATCH celery-* COUNT 500
KEYS 17179869184 TTLBELOW 90s
ORPHANS PURGE chord OLDERTHAN 2d LIMIT 1 DRYRUN ASYNC
ORPHANS REQUEUE OLDERTHAN 2h
SCAN PREFIX p: MATCH a* MEMORY EXACT TOP 3 ASYNC
SCAN ALLDBS MEMORY SAMPLE
TRIGGER a.b QUEUE q ARGS [1,"two",null] KWARGS {"a":{"b":[]}} TIMEOUT 5s DB 0
"""
SETTINGS = {
    "enforce": "yes",
    "default-ttl": "36500d",
    "ttl-jitter": "50%",
    "ttl-basis": "done",
    "max-writes-per-sec": "10000000",
    "result-keys": r"celery-task-meta-* my[a-c\]]?\** [^x]*",
    "key-prefixes": "myapp shop:",
    "slice-us": "100000",
    "expected-tasks": "maintenance.cleanup=1h a=b=10m",
    "maintenance-queues": "maintenance other",
    "visibility-timeout": "90",
    "state-key": "hygiene:state",
}
PATTERNS = [
    ("celery-task-meta-*", "celery-task-meta-1"),
    ("*a*b?[c-e]*", "xxaxxbxdxx"),
    (r"[^\]a-c-]\*[", "x*"),
    ("*[^a]*[z-a]\\", "bcd\\"),
]
NAMES = [
    "celery-task-meta-1",
    "myapp_celery-taskset-meta-1.j",
    ":1:celery-task-meta-1",
    "_kombu.binding.celery",
    "unacked_index",
    "redbeat::schedule",
    "6f1e0b9a-0000-3000-8000-000000000002.reply.celery.pidbox",
    "/0.celery.pidbox/x",
    "SINGLETONLOCK_a",
]


def keep(target, name, *lines):
    """Writes one seed; several lines make one input."""
    folder = SEEDS / target
    folder.mkdir(parents=True, exist_ok=True)
    lines = [line.encode() if isinstance(line, str) else line for line in lines]
    (folder / name).write_bytes(b"\n".join(lines))


def application(server, **settings):
    # Results are never waited for: a backend of its own would want to unsubscribe.
    app = Celery("seeds", broker=server.url, backend=server.url, set_as_current=False)
    app.conf.update(settings)
    app.conf.task_queues = [Queue("celery"), Queue("maintenance")]

    @app.task(name="shop.order")
    def order(*_args, **_kwargs):
        return None

    return app


def results(server, client):
    """As the backend of each serializer stores them."""
    states = [
        ("success", {"total": [1, 2.5, None], "who": "Müller\n"}, "SUCCESS"),
        ("failure", ValueError("no such order: 1"), "FAILURE"),
        ("retry", ValueError("later"), "RETRY"),
        ("started", {"pid": 1, "hostname": "w1@lab"}, "STARTED"),
        ("progress", {"done": 1}, "PROGRESS"),
    ]
    for serializer in SERIALIZERS:
        for extended in (False, True):
            app = application(
                server,
                result_serializer=serializer,
                result_extended=extended,
                accept_content=SERIALIZERS,
            )
            for name, value, state in states:
                try:
                    app.backend.store_result(name, value, state, traceback="Traceback ...")
                except Exception as error:  # a serializer that is not installed
                    print(f"seeds: left out {serializer}: {error}")
                    break
                body = client.get(f"celery-task-meta-{name}")
                keep("result", f"{serializer}-{name}{'-extended' * extended}", body)
    # Those two are not among this environment's packages.
    keep("result", "msgpack", b"\x84\xa6status\xa7SUCCESS\xa6result\x03\xa9date_done\xc0\xa7task_id\xa1a")
    keep("result", "yaml", b"date_done: '2026-11-25T03:46:21'\nresult: 3\nstatus: SUCCESS\n")
    app = application(server, result_compression="gzip")
    app.backend.store_result("packed", "x" * 500, "SUCCESS")
    keep("result", "packed", client.get("celery-task-meta-packed"))


def messages(server, client):
    """As producers send them, and as they lie in `unacked` when a worker has them."""
    soon = datetime.now(timezone.utc) + timedelta(hours=1)
    options = {
        "plain": {"args": (1, "two"), "kwargs": {"who": "Müller"}},
        "eta": {"eta": soon},
        "expires": {"expires": 60},
        "priority": {"priority": 6},
        "beat": {"headers": {"celery_beat_task": True, "periodic_task_name": "each hour"}},
        "ignored": {"ignore_result": True, "retries": 3},
        "pickle": {"serializer": "pickle", "args": (b"bytes",)},
        "zlib": {"compression": "zlib", "args": ("x" * 500,)},
    }
    for protocol in (1, 2):
        app = application(server, task_protocol=protocol, accept_content=SERIALIZERS)
        for name, given in options.items():
            client.flushall()
            app.send_task("shop.order", **given)
            _message(app, client, f"{name}-v{protocol}")
    client.flushall()
    order = app.tasks["shop.order"]
    chord([order.s(n) for n in range(2)], order.s()).apply_async()
    _message(app, client, "chord")


def _message(app, client, name):
    queue = next(key for key in client.keys("celery*") if client.type(key) == b"list")
    element = client.lindex(queue, 0)
    keep("envelope", name, element)
    keep("body", name, element)
    with app.connection_for_read() as connection:
        channel = connection.channel()
        channel.basic_get("celery", no_ack=False)
        # While the channel holds it. Closing puts it back.
        for _, value in client.hgetall("unacked").items():
            keep("unacked", name, value)
            keep("body", f"{name}-unacked", value)
        channel.close()


def bindings(server, client):
    app = application(server)
    with app.connection_for_write() as connection:
        for queue in app.conf.task_queues:
            queue(connection).declare()
        app.control.mailbox.get_queue("w1@lab")(connection).declare()
        app.control.mailbox.get_reply_queue()(connection).declare()
    for key in client.keys("_kombu.binding*"):
        if client.type(key) == b"set":
            members = sorted(client.smembers(key))
            keep("binding", key.decode().removeprefix("_kombu."), key, b"celery", *members)
    keep("binding", "topic", "p:_kombu.binding.events", "task.sent.1", b"task.#\x06\x16^task$\x06\x16celeryev.1")
    keep("binding", "priority", b"celery\x06\x163")


def redbeat(server, client):
    from redbeat import RedBeatSchedulerEntry

    app = application(server, redbeat_redis_url=server.url)
    for name, when in (
        ("interval", schedule(run_every=3)),
        ("crontab", crontab(minute="*/10", hour="3-5")),
    ):
        entry = RedBeatSchedulerEntry(name, "shop.order", when, args=[1], options={"queue": "q"}, app=app)
        entry.save()
        next(entry).save()
        for field, value in client.hgetall(f"redbeat:{name}").items():
            keep("redbeat", f"{name}-{field.decode()}", value)


def observations(server, client):
    """As the module itself writes them."""
    client.flushall()
    app = application(server)
    for _ in range(4):
        app.send_task("shop.order", headers={"celery_beat_task": True, "periodic_task_name": "each hour"})
        client.lpop("celery")
        time.sleep(0.3)
    deadline = time.monotonic() + 30
    while not client.exists("hygiene:state") and time.monotonic() < deadline:
        time.sleep(0.2)
    for at, (field, value) in enumerate(client.hgetall("hygiene:state").items()):
        keep("state", f"series-{at}", field, value)
    lock = json.dumps({"v": 1, "lock_timeout_ms": 1_500_000, "last_ms": 1_795_578_381_000})
    keep("state", "lock", "redbeat:0:redbeat::lock", lock)


def clients(server, client):
    """Two of them, one that waits, in the server's own words."""
    waiting = Redis(port=server.port).connection_pool.get_connection()
    waiting.send_command("BRPOP", "celery", 30)
    listening = client.pubsub()
    listening.psubscribe("/0.celeryev/*")
    asking = client.connection_pool.get_connection()
    asking.send_command("CLIENT", "LIST")
    text = asking.read_response()
    keep("clients", "waiting", text if isinstance(text, bytes) else text.encode())
    waiting.disconnect()


def words():
    for at, line in enumerate(COMMANDS.strip().splitlines()):
        keep("arguments", f"{line.split()[0].lower()}-{at}", *line.split(" "))
    for name, value in SETTINGS.items():
        keep("settings", name, name, value)
    for at, (pattern, name) in enumerate(PATTERNS):
        keep("glob", str(at), pattern, name)
    for at, name in enumerate(NAMES):
        keep("class", str(at), "celery-task-meta-* other*", "*exempt*", "myapp shop:", name)


def main():
    shutil.rmtree(SEEDS, ignore_errors=True)
    words()
    server = LocalRedis("seeds", {"sweep-on-start": "no", "sweep-interval": "0"})
    server.start()
    try:
        client = Redis(port=server.port)
        clients(server, client)
        for part in (results, messages, bindings, redbeat, observations):
            part(server, client)
    finally:
        server.stop()
    count = sum(1 for path in SEEDS.rglob("*") if path.is_file())
    size = sum(path.stat().st_size for path in SEEDS.rglob("*") if path.is_file())
    print(f"seeds: {count} files, {size} bytes")


if __name__ == "__main__":
    main()
