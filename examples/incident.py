"""The incident, written into Redis as the programs that cause it write it.

Results that were never given a TTL, in the date formats of several Celery
versions, beside the broker's own keys, which must never get one.
"""

import base64
import json
import pickle
import uuid
from collections import Counter
from datetime import datetime, timedelta, timezone

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
SEP = "\x06\x16"
# About what a view's cached answer takes.
PAYLOAD = {"rows": ["x" * 60 for _ in range(12)]}


def result(status, **fields):
    value = {"status": status, "result": PAYLOAD, "traceback": None, "children": []}
    value.update(fields)
    return value


def naive_utc(moment):
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f")


def utc_offset(moment):
    return moment.isoformat()


def local_offset(moment):
    return moment.astimezone(timezone(timedelta(hours=1))).isoformat()


def javascript(moment):
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


# What, how many, how the date is written, the ages, what FIXTTL must do.
FINISHED = (
    ("Celery 4.4 to 5.3, naive UTC", 3000, naive_utc, (3 * HOUR, 30 * DAY), "deleted"),
    ("Celery 5.4, +00:00", 2000, utc_offset, (3 * HOUR, 30 * DAY), "deleted"),
    ("Celery 5.5 and newer, +01:00", 2000, local_offset, (3 * HOUR, 30 * DAY), "deleted"),
    ("celery.node, Z", 1000, javascript, (3 * HOUR, 30 * DAY), "deleted"),
    ("finished within 90 minutes, naive UTC", 400, naive_utc, (5 * MINUTE, 90 * MINUTE), "stamped"),
    # Read as UTC, these would look an hour younger; read without their offset,
    # an hour older, and be deleted too early.
    ("finished within 90 minutes, +01:00", 400, local_offset, (5 * MINUTE, 90 * MINUTE), "stamped"),
)
UNDATED = (
    ("Celery 3.1, no date_done", 500),
    ("STARTED, its worker killed", 200),
    ("pickle, not to be opened", 300),
)
# A client that does set a TTL, and nothing older than max-age: nothing to do.
WITH_TTL = ("result_expires left at one day", 250)

# The same share of failures and revocations in each.
STATUSES = ("SUCCESS",) * 8 + ("FAILURE", "REVOKED")


def results(now):
    """Yields (what, outcome, name, value, ttl in seconds or None)."""

    def named(value):
        task_id = str(uuid.uuid4())
        value["task_id"] = task_id
        return f"celery-task-meta-{task_id}", value

    for what, count, text, (youngest, oldest), outcome in FINISHED:
        for i in range(count):
            age = youngest + (oldest - youngest) * (i / count)
            status = STATUSES[i % len(STATUSES)]
            name, value = named(result(status, date_done=text(now - age)))
            yield what, outcome, name, json.dumps(value), None
    (absent, no_date), (started, running), (pickled, opaque) = UNDATED
    for _ in range(no_date):
        name, value = named(result("SUCCESS"))
        yield absent, "undated", name, json.dumps(value), None
    for _ in range(running):
        name, value = named(result("STARTED", date_done=None))
        yield started, "undated", name, json.dumps(value), None
    for i in range(opaque):
        done = naive_utc(now - 3 * DAY - i * MINUTE)
        name, value = named(result("SUCCESS", date_done=done))
        yield pickled, "undated", name, pickle.dumps(value, protocol=4), None
    what, count = WITH_TTL
    for _ in range(count):
        name, value = named(result("SUCCESS", date_done=local_offset(now - 30 * MINUTE)))
        yield what, "kept", name, json.dumps(value), 86400


def message(task, queue, eta=None):
    """A task message as kombu lays it into a list."""
    task_id = str(uuid.uuid4())
    body = base64.b64encode(b"[[], {}, {}]").decode()
    headers = {
        "lang": "py", "task": task, "id": task_id, "shadow": None, "eta": eta, "expires": None,
        "group": None, "group_index": None, "retries": 0, "timelimit": [None, None],
        "root_id": task_id, "parent_id": None, "argsrepr": "()", "kwargsrepr": "{}",
        "origin": "gen4711@web-1", "ignore_result": False,
    }  # fmt: skip
    properties = {
        "correlation_id": task_id, "reply_to": str(uuid.uuid4()), "delivery_mode": 2,
        "delivery_info": {"exchange": "", "routing_key": queue}, "priority": 0,
        "body_encoding": "base64", "delivery_tag": str(uuid.uuid4()),
    }  # fmt: skip
    return {
        "body": body, "content-encoding": "utf-8", "content-type": "application/json",
        "headers": headers, "properties": properties,
    }  # fmt: skip


def write_results(client, now):
    """Writes the results; returns how many of each kind and of each outcome."""
    kinds = Counter()
    outcomes = Counter()
    pipeline = client.pipeline(transaction=False)
    for what, outcome, name, value, ttl in results(now):
        pipeline.set(name, value, ex=ttl)
        kinds[what] += 1
        outcomes[outcome] += 1
    pipeline.execute()
    return kinds, outcomes


def write_broker_keys(client, now):
    """Writes what Celery, kombu and RedBeat keep beside the results."""
    seconds = now.timestamp()
    # A queue with two priorities, read by workers that are off until tonight.
    for _ in range(3):
        client.lpush("reports", json.dumps(message("shop.send_report", "reports")))
    for _ in range(2):
        client.lpush(f"reports{SEP}3", json.dumps(message("shop.send_report", "reports")))
    client.sadd("_kombu.binding.reports", f"reports{SEP}{SEP}reports")
    # Delivered, and waiting for an eta that lies ahead: not stuck.
    for _ in range(3):
        waiting = message("shop.reminder", "celery", eta=(now + DAY).isoformat())
        tag = waiting["properties"]["delivery_tag"]
        client.hset("unacked", tag, json.dumps([waiting, "", "celery"]))
        client.zadd("unacked_index", {tag: seconds - 600})
    # Answers to a monitor that was killed before it could read them.
    for _ in range(2):
        reply = json.dumps({"body": "e30" * 30_000, "headers": {"ticket": str(uuid.uuid4())}})
        client.lpush(f"{uuid.uuid4()}.reply.celery.pidbox", reply)
    # A chord half way: without these its body never runs.
    group = str(uuid.uuid4())
    client.zadd(f"celery-taskset-meta-{group}.j", {'[1, "t", "SUCCESS", 1]': 0})
    client.set(f"celery-taskset-meta-{group}.s", 2)
    # RedBeat, which nobody has seen for three days: entries overdue, lock gone.
    for name, task, every in (
        ("cleanup-celery-results", "maintenance.cleanup_celery_results", 3600.0),
        ("cleanup-orphaned-jobs", "maintenance.cleanup_orphaned_jobs", 600.0),
    ):
        schedule = {"__type__": "interval", "every": every, "relative": False}
        definition = {
            "name": name, "task": task, "args": None, "kwargs": {},
            "options": {"queue": "maintenance"}, "schedule": schedule, "enabled": True,
        }  # fmt: skip
        last = now - 3 * DAY
        last_run = {
            "__type__": "datetime", "year": last.year, "month": last.month, "day": last.day,
            "hour": last.hour, "minute": last.minute, "second": last.second,
            "microsecond": last.microsecond, "timezone": "UTC",
        }  # fmt: skip
        meta = {"last_run_at": last_run, "total_run_count": 1234}
        fields = {"definition": json.dumps(definition), "meta": json.dumps(meta)}
        client.hset(f"redbeat:{name}", mapping=fields)
        client.zadd("redbeat::schedule", {f"redbeat:{name}": last.timestamp() + every})
        client.sadd("redbeat::statics", name)


# What write_broker_keys wrote, by pattern.
BROKER_KEYS = (
    "reports*", "_kombu.binding.reports", "unacked*", "*.reply.celery.pidbox",
    "celery-taskset-meta-*", "redbeat:*",
)  # fmt: skip


def broker_state(client):
    """Content and TTL of every key write_broker_keys wrote."""
    state = {}
    for pattern in BROKER_KEYS:
        for key in client.scan_iter(pattern, count=1000):
            if key.startswith("_kombu.binding.") and not key.endswith(".reports"):
                continue
            read = {
                "list": lambda key: client.lrange(key, 0, -1),
                "set": lambda key: sorted(client.smembers(key)),
                "hash": lambda key: sorted(client.hgetall(key).items()),
                "zset": lambda key: client.zrange(key, 0, -1, withscores=True),
                "string": client.get,
            }[client.type(key)]
            state[key] = (read(key), client.pttl(key))
    return state


def now_of(client):
    """The server's clock, which the module goes by."""
    seconds, microseconds = client.time()
    return datetime.fromtimestamp(seconds, timezone.utc) + timedelta(microseconds=microseconds)
