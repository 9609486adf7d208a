"""End to end: real Celery workers and beats against a real server.

    tests/e2e/run.py target/venv/celery-5.7 [SCENARIO ...]

Celery runs from the environment named; this driver runs in the newest one. Each
scenario has its own servers, every wait a deadline, and nothing is left behind.
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
from contextlib import ExitStack, contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "examples"))
sys.dont_write_bytecode = True

import reading  # noqa: E402
from local_redis import MODULE, LocalRedis, server_version  # noqa: E402
from processes import (  # noqa: E402
    EXAMPLES,
    Failure,
    beat,
    exit_on_sigterm,
    kill,
    run_program,
    spawn,
    wait_for,
    worker,
)

ENVIRONMENT = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else None
# So that nothing but the hook and the commands asked for does anything.
NO_SWEEPS = {"sweep-on-start": "no", "sweep-interval": "0"}
TTL_S = 3600


def check(what, holds, seen=""):
    if not holds:
        raise Failure(f"not so: {what}" + (f"; seen: {seen!r}" if seen != "" else ""))


def has_redbeat():
    return bool(list(ENVIRONMENT.glob("lib/python*/site-packages/redbeat")))


def celery_version():
    found = next(ENVIRONMENT.glob("lib/python*/site-packages/celery-*.dist-info"))
    return tuple(int(part) for part in found.name.split("-")[1].split(".")[:2])


@contextmanager
def servers():
    """Hands out a starter of servers; prints their logs when a scenario fails."""
    started = []
    with ExitStack() as stack:

        def start(name, **options):
            server = stack.enter_context(LocalRedis(name, **options))
            started.append(server)
            return server

        try:
            yield start
        except Exception:
            for server in started:
                print(server.all_logs())
            raise


def run_client(program, url, deadline_s=180):
    return run_program(ENVIRONMENT, program, deadline_s, REDIS_URL=url, PYTHONPATH=str(EXAMPLES))


def status(client):
    return client.execute_command("HYGIENE.BEATSTATUS")


def state(client):
    """Key -> (type, time of expiry in ms or -1, content)."""
    found = {}
    for key in client.scan_iter("*", count=2000):
        kind = client.type(key)
        read = {
            "string": client.get,
            "list": lambda key: client.lrange(key, 0, -1),
            "set": lambda key: sorted(client.smembers(key)),
            "hash": lambda key: sorted(client.hgetall(key).items()),
            "zset": lambda key: client.zrange(key, 0, -1, withscores=True),
        }[kind]
        found[key] = (kind, client.execute_command("PEXPIRETIME", key), read(key))
    return found


def check_same(what, one, other):
    keys = set(one) ^ set(other)
    check(f"{what}: the same keys", not keys, sorted(keys)[:5])
    unlike = {key: (one[key][:2], other[key][:2]) for key in one if one[key] != other[key]}
    check(f"{what}: the same expiry and content", not unlike, sorted(unlike.items())[:5])


class Meanwhile(threading.Thread):
    """FIXTTL over and over while the worker works, and a look at the chords."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.client = server.client()
        self.stopped = threading.Event()
        self.error = None
        self.runs = 0
        self.stamped = 0
        self.helpers = set()

    def run(self):
        try:
            while not self.stopped.wait(0.3):
                self.stamped += self.client.execute_command("HYGIENE.FIXTTL")["stamped"]
                self.runs += 1
                for key in self.client.scan_iter("celery-taskset-meta-*", count=1000):
                    # Celery's own claim (.c, since 5.7) always has a TTL.
                    if not key.endswith(".c"):
                        self.helpers.add(key)
                        ttl = self.client.pttl(key)
                        check("chord and group keys have no TTL", ttl < 0, (key, ttl))
        except Exception as error:
            self.error = error

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.join(30)


def two_thousand_tasks_leave_no_immortal_result(start):
    primary = start("primary", settings=NO_SWEEPS)
    replica = start("replica", settings=NO_SWEEPS, replica_of=primary)
    client = primary.client()
    wait_for(
        "replica in sync",
        lambda: replica.client().info("replication").get("master_link_status") == "up",
    )
    begun = time.monotonic()
    with worker("worker", ENVIRONMENT, primary.url, primary.dir):
        with Meanwhile(primary) as meanwhile:
            sent = json.loads(run_client([HERE / "load.py"], primary.url))
        if meanwhile.error:
            raise meanwhile.error
        check("every chord and group has its answer", not sent["wrong"], sent["wrong"])
        check("2,000 tasks were sent", len(set(sent["tasks"])) == 2000, len(set(sent["tasks"])))
        check("FIXTTL ran meanwhile", meanwhile.runs > 3, meanwhile.runs)
        # Else FIXTTL would hide that the hook does nothing. Before 7.2 the hook acts
        # at the end of the event loop's turn, and a slice may fall just before it; on a
        # busy machine much is written in a turn.
        most = 0 if server_version() >= (7, 2, 0) else 400
        check(
            f"FIXTTL had {most} results to stamp at most",
            meanwhile.stamped <= most,
            meanwhile.stamped,
        )
        check("chord helpers were seen meanwhile", meanwhile.helpers)
        wait_for("quiet worker", lambda: client.zcard("unacked_index") == 0)

    ttls = reading.result_ttls(client)
    told = {f"celery-task-meta-{task}" for task in sent["tasks"]}
    check("each task has its result, and there is no other", set(ttls) == told, len(ttls))
    # The few that FIXTTL may have met first have up to a tenth less.
    low = TTL_S * 0.9 - (time.monotonic() - begun)
    wrong = {key: ttl for key, ttl in ttls.items() if not low < ttl <= TTL_S}
    check("each result has the default TTL", not wrong, sorted(wrong.items())[:5])
    left = [key for key in client.scan_iter("celery-taskset-meta-*") if not key.endswith(".c")]
    saved = f"celery-taskset-meta-{sent['group']}"
    check("no chord is left open", left == [saved], left)
    check("the saved group has no TTL", client.ttl(saved) == -1, client.ttl(saved))

    # Primary, replica and AOF, all at rest now.
    offset = client.info("replication")["master_repl_offset"]
    wait_for(
        "replica at the primary's offset",
        lambda: replica.client().info("replication")["slave_repl_offset"] >= offset,
    )
    on_primary = state(client)
    check_same("primary and replica", on_primary, state(replica.client()))
    restored = start("restored", settings=NO_SWEEPS, seed_dir=primary.dir)
    check_same("primary and AOF", on_primary, state(restored.client()))


def workers_are_counted_and_named(start):
    server = start("workers", settings=NO_SWEEPS)
    client = server.client()

    def live(number):
        wait_for(
            f"{number} live workers in BEATSTATUS",
            lambda: status(client)["workers"]["live"] == number,
            deadline_s=60,
        )
        # And it stays so, between two polls of the queue, too.
        for _ in range(10):
            seen = status(client)["workers"]["live"]
            check(f"{number} workers are live", seen == number, seen)
            time.sleep(0.1)

    live(0)
    with worker("one", ENVIRONMENT, server.url, server.dir):
        live(1)
        quiet = ("--without-gossip", "--without-mingle")
        with worker("two", ENVIRONMENT, server.url, server.dir, *quiet) as two:
            live(2)
            bound = " ".join(status(client)["workers"]["bound"])
            check("both are named", "one@" in bound and "two@" in bound, bound)
            two.kill()
            live(1)
    live(0)


def scan_tells_what_is_there(start):
    server = start("classes", settings=NO_SWEEPS)
    client = server.client()
    # Two processes with slow tasks: the rest is prefetched or waits in the queue.
    program = "from celery_app import slow\nfor _ in range(40): slow.delay(6)"
    with worker("busy", ENVIRONMENT, server.url, server.dir) as busy:
        run_client(["-c", program], server.url)
        wait_for("prefetched messages", lambda: client.zcard("unacked_index") >= 8)

        def broker():
            keys = {key: value for key, value in state(client).items() if "-meta-" not in key}
            # Refreshed by every 5.7 consumer, not by us.
            keys.pop("_kombu.binding_deadlines", None)
            return keys

        def compared():
            """The worker acts now and then; compare where it did not meanwhile."""
            before = broker()
            scan = client.execute_command("HYGIENE.SCAN")
            fixed = client.execute_command("HYGIENE.FIXTTL")
            return before == broker() and (before, scan, fixed)

        before, scan, _ = wait_for("FIXTTL and SCAN that change no broker key", compared)
        classes = reading.by_name(scan["classes"], "class")
        told = {
            "queue": ["celery"],
            "unacked": ["unacked", "unacked_index"],
            "binding": [key for key in before if key.startswith("_kombu.binding")],
        }
        for name, keys in told.items():
            seen = classes.get(name)
            check(f"SCAN has class {name}", seen is not None, sorted(classes))
            check(f"SCAN's {name} keys are {len(keys)}", seen["keys"] >= len(keys), seen)
            check(f"no {name} key has a TTL", seen["no_ttl"] == seen["keys"], seen)
        queue, length = classes["queue"], len(before["celery"][2])
        check(f"SCAN's queue length is {length}", queue["length"] == length, queue)
        results = classes["task_result"]
        check("no result is without TTL", results["no_ttl"] == 0, results)
        unacked = status(client)["unacked"]
        check("BEATSTATUS counts unacked", unacked["count"] == client.hlen("unacked"), unacked)
        check("nothing is stuck", unacked["stuck"] == 0, unacked)
        busy.kill()


def unread_beat_is_not_called_silent(start):
    """Stock beat goes on, and nobody reads its queue."""
    # Before 5.7 nothing in a message says it is beat's: the operator names the task.
    expected = {"expected-tasks": "maintenance.cleanup_orphaned_jobs=1s"}
    server = start("unread", settings={**NO_SWEEPS, **expected})
    client = server.client()
    with beat("beat", ENVIRONMENT, server.url, server.dir, BEAT_SCHEDULE="1"):
        wait_for("messages from beat", lambda: client.llen("maintenance") >= 5)
        seen = status(client)
        told = ("workers_absent", "queue_not_consumed")
        check(f"without a worker the verdict is one of {told}", seen["verdict"] in told, seen)
        with worker("elsewhere", ENVIRONMENT, server.url, server.dir, queues="celery"):
            wait_for("more messages", lambda: client.llen("maintenance") >= 10)
            seen = status(client)
            verdict = seen["verdict"]
            check("beside a worker elsewhere it is queue_not_consumed", verdict == told[1], seen)
            check("the reason names the queue", "maintenance" in seen["reason"], seen["reason"])
            queue = reading.by_name(seen["queues"], "name")["maintenance"]
            check("the queue's length is told", queue["length"] >= 10, queue)
        before = client.lrange("maintenance", -10, -1)
        client.execute_command("HYGIENE.FIXTTL")
        check("the oldest messages are all there", client.lrange("maintenance", -10, -1) == before)
        check("the queue has no TTL", client.ttl("maintenance") == -1)
        with worker("reader", ENVIRONMENT, server.url, server.dir):
            wait_for("empty queue", lambda: client.llen("maintenance") == 0)
            wait_for(
                "verdict that blames neither beat nor workers",
                lambda: status(client)["verdict"] in ("healthy", "unknown"),
            )


def beat_of_protocol_1_is_heard_and_told_silent(start):
    """Messages as Celery 3 sent them, which name their task in the body only."""
    name = "maintenance.cleanup_orphaned_jobs"
    server = start("protocol", settings={**NO_SWEEPS, "expected-tasks": f"{name}=1s"})
    client = server.client()
    protocol = {"TASK_PROTOCOL": "1", "BEAT_SCHEDULE": "1"}

    def task():
        return reading.by_name(status(client)["tasks"], "name").get(name, {})

    with worker("worker", ENVIRONMENT, server.url, server.dir, **protocol):
        with beat("beat", ENVIRONMENT, server.url, server.dir, **protocol) as process:
            wait_for("the end of a run", lambda: task().get("last_status") == "SUCCESS")
            seen = status(client)
            publisher = seen["publisher"]
            check("the publisher is alive", publisher["state"] == "alive", seen)
            check("that is proven", publisher["certainty"] == "proven", publisher)
            check("one beat is seen", len(publisher["origins"]) == 1, publisher)
            process.kill()
        wait_for("a silent beat", lambda: status(client)["verdict"] == "beat_silent")
    found = client.execute_command("HYGIENE.STATS")
    check("every message was read", found["unreadable_messages_total"] == 0, found)


def redbeat_is_seen_and_left_alone(start):
    server = start("redbeat", settings=NO_SWEEPS)
    client = server.client()
    redbeat = {"BEAT_SCHEDULE": "1", "REDBEAT": "1"}
    scheduler = ("-S", "redbeat.RedBeatScheduler")
    entry = "redbeat:cleanup-orphaned-jobs"

    def runs():
        return json.loads(client.hget(entry, "meta") or "{}").get("total_run_count", 0)

    with worker("worker", ENVIRONMENT, server.url, server.dir):
        with beat("beat", ENVIRONMENT, server.url, server.dir, *scheduler, **redbeat) as process:
            wait_for("third run of the periodic task", lambda: runs() >= 3)
            seen = status(client)
            check("the verdict is not beat_silent", seen["verdict"] != "beat_silent", seen)
            publisher = seen["publisher"]
            check("the publisher is alive", publisher["state"] == "alive", publisher)
            check("that is proven", publisher["certainty"] == "proven", publisher)
            check("there is a redbeat part", "redbeat" in seen, sorted(seen))
            process.kill()

        def schedule():
            found = {}
            for key, value in state(client).items():
                if key.startswith("redbeat:") and key != "redbeat::lock":
                    found[key] = value
            return found

        before = schedule()
        check("RedBeat left its keys", {entry, "redbeat::schedule"} <= set(before), sorted(before))
        lock_ms = client.pttl("redbeat::lock")
        fixed = client.execute_command("HYGIENE.FIXTTL")
        client.execute_command("HYGIENE.SCAN")
        check_same("RedBeat's keys before and after FIXTTL", before, schedule())
        lock_after_ms = client.pttl("redbeat::lock")
        check("the lock only runs down", lock_after_ms <= lock_ms, (lock_ms, lock_after_ms))
        check("nothing was deleted", fixed["deleted"] == 0, fixed)
        wait_for("end of the lock", lambda: not client.exists("redbeat::lock"))
        wait_for(
            "publisher that is no longer alive",
            lambda: status(client)["publisher"]["state"] != "alive",
        )


def trigger_follows_a_task_to_its_end(start):
    """A message published by the server itself, for workers of every version."""
    server = start("trigger", settings=NO_SWEEPS)
    client = server.client()

    def told(expected, words, task, *options):
        seen = client.execute_command("HYGIENE.TRIGGER", task, *options)
        check(f"{task}: {expected}", {**seen, **expected} == seen, seen)
        check(f"{task}: the reason says {words!r}", words in seen["reason"], seen)
        return seen

    with worker("worker", ENVIRONMENT, server.url, server.dir, queues="celery") as process:
        works = {"state": "finished", "status": "SUCCESS", "result": "3", "stuck_at": ""}
        for given in (("ARGS", "[1, 2]"), ("KWARGS", '{"x": 1, "y": 2}')):
            seen = told(works, "every link works", "shop.add", *given)
            times = [seen[field] for field in ("published_ms", "taken_ms", "finished_ms")]
            check("the times are in order", times == sorted(times) and times[0] > 0, seen)
            ttl = client.ttl(f"celery-task-meta-{seen['task_id']}")
            check("the result has the default TTL", 0 < ttl <= TTL_S, ttl)
        failed = {"state": "finished", "status": "FAILURE", "stuck_at": ""}
        broken = {**failed, "result": "ValueError: no such order: 7"}
        told(broken, "failed with ValueError", "shop.broken", "ARGS", "[7]")
        seen = told(failed, "does not know the task shop.nothing", "shop.nothing")
        check("it is said by whom", seen["result"].startswith("NotRegistered"), seen)
        # Until 5.5 the task decides alone, then the message has the last word.
        if celery_version() >= (5, 6):
            told({**works, "result": "null"}, "every link works", "shop.quiet")
        else:
            ignored = {"state": "taken", "status": "", "result": "", "stuck_at": "result"}
            told(ignored, "ignore_result", "shop.quiet", "TIMEOUT", "2s")
        begun = {"state": "taken", "status": "STARTED", "stuck_at": "task"}
        told(begun, "has not finished it", "shop.slow", "ARGS", "[6]", "TIMEOUT", "2s")
        unread = {"state": "published", "stuck_at": "queue", "bound": "no"}
        queue = ("QUEUE", "maintenance", "TIMEOUT", "3s")
        told(unread, "not for those of this queue", "maintenance.cleanup_orphaned_jobs", *queue)
        wait_for("quiet worker", lambda: client.zcard("unacked_index") == 0)
        process.kill()
    alone = {"state": "published", "stuck_at": "worker", "bound": "yes"}
    told(alone, "no worker is connected", "shop.add", "ARGS", "[1, 2]", "TIMEOUT", "2s")
    # What nobody took is run by the next worker, as any other message.
    ended = len(reading.result_ttls(client))
    with worker("next", ENVIRONMENT, server.url, server.dir):
        wait_for("both ends", lambda: len(reading.result_ttls(client)) == ended + 2)


SEND = """
import json
import os
from celery_app import add, late
waiting = [add.apply_async((n, 1), countdown=30) for n in range(2)]
working = [late.delay(2) for _ in range(4)] + [add.delay(n, 2) for n in range(20)]
print(json.dumps({"waiting": [r.id for r in waiting], "working": [r.id for r in working]}))
"""

# kombu's own restore of all that is old enough, on a database of its own.
RESTORE = """
from celery_app import app
with app.connection_for_write() as connection:
    app.amqp.queues["celery"](connection.default_channel).declare()
    qos = connection.default_channel.qos
    qos.visibility_timeout = 10
    qos.restore_visible(num=None, interval=1)
"""


def a_killed_workers_messages_go_back_and_every_task_runs(start):
    server = start("orphans", settings={**NO_SWEEPS, "visibility-timeout": "10s"})
    client = server.client()

    def orphans(*words):
        return client.execute_command("HYGIENE.ORPHANS", *words)

    def started():
        results = [client.get(key) for key in client.scan_iter("celery-task-meta-*", count=1000)]
        return sum('"STARTED"' in result for result in results if result)

    with worker("killed", ENVIRONMENT, server.url, server.dir) as killed:
        sent = json.loads(run_client(["-c", SEND], server.url))
        wait_for("both processes at work", lambda: started() == 2)
        wait_for("prefetched messages", lambda: client.zcard("unacked_index") >= 8)
        young = orphans("REQUEUE")
        check("nothing is taken from a live worker", young["requeued"] == 0, young)
        killed.kill()
    left = client.hlen("unacked")
    check("the worker left its messages", left >= 8, left)
    wait_for("old messages", lambda: orphans()["unacked"][0]["stuck"] == left - 2)

    for key in client.scan_iter("*"):
        if key.startswith(("unacked", "_kombu.binding")) or key == "celery":
            client.copy(key, key, destination_db=1)
    run_client(["-c", RESTORE], server.url.replace("/0", "/1"))
    check("kombu has put all of its copy back", not server.client(1).exists("unacked"))
    dry = orphans("REQUEUE", "DRYRUN")
    done = orphans("REQUEUE")
    place = done["unacked"][0]
    check("all but the two that wait went back", done["requeued"] == left - 2, done)
    check("the two wait for their eta", place["waiting"] == 2, place)
    check("DRYRUN told so", dry["requeued"] == done["requeued"], dry)
    check("those two are left", client.hlen("unacked") == 2, client.hlen("unacked"))
    check("never twice", orphans("REQUEUE")["requeued"] == 0)

    ours = client.lrange("celery", 0, -1)
    theirs = server.client(1).lrange("celery", 0, -1)
    waiting = [m for m in theirs if any(task in m for task in sent["waiting"])]
    # kombu puts back those that wait as well: a worker takes them anew.
    theirs = [message for message in theirs if message not in waiting]
    check("kombu found the two as well", len(waiting) == 2, len(waiting))
    check("byte for byte what kombu puts back, in its order", ours == theirs, (ours, theirs))

    with worker("next", ENVIRONMENT, server.url, server.dir):
        wait_for(
            "the result of every task that was not waiting",
            lambda: all(
                '"SUCCESS"' in (client.get(f"celery-task-meta-{task}") or "")
                for task in sent["working"]
            ),
            deadline_s=90,
        )
        # Each is put back when its own time has come.
        back = []

        def both_are_back():
            back.append(orphans("REQUEUE")["requeued"])
            return sum(back) == 2

        wait_for("end of both etas", both_are_back, deadline_s=90)
        wait_for(
            "the result of every task",
            lambda: all(
                '"SUCCESS"' in (client.get(f"celery-task-meta-{task}") or "")
                for task in sent["waiting"] + sent["working"]
            ),
        )
        wait_for("nothing unacknowledged", lambda: not client.exists("unacked"))
    check("no message is left", not client.exists("celery", "unacked", "unacked_index"))
    check_runs(server, sent["waiting"] + sent["working"], [task_id(message) for message in ours])


# Messages of every way there is: by queue, by a direct and by a topic exchange, the last
# into two queues; of each priority in turn. What is given to `act` is done with them.
WAYS = """
import os
from celery_app import app
from kombu import Exchange, Queue
shop, news = Exchange("shop"), Exchange("news", type="topic")
queues = [
    Queue("plain", Exchange("plain"), "plain"),
    Queue("orders", shop, "order"),
    Queue("eu", news, "order.*.eu"),
    Queue("all", news, "order.#"),
]
ways = [
    {{"queue": queues[0]}},
    {{"queue": None, "exchange": shop, "routing_key": "order"}},
    {{"queue": None, "exchange": news, "routing_key": "order.new.eu"}},
    {{"queue": None, "exchange": news, "routing_key": "order.old.us"}},
]
def send():
    for n in range(40):
        app.send_task("shop.add", (n, 1), priority={priority}, declare=queues,
                      connection=connection, **ways[n % 4])
def take():
    for queue in queues:
        while channel.basic_get(queue.name) is not None:
            pass
def restore():
    channel.qos.visibility_timeout = 10
    channel.qos.restore_visible(num=None, interval=1)
connection = app.connection_for_write()
channel = connection.default_channel
for queue in queues:
    queue(channel).declare()
{act}
# As one that is killed.
os._exit(0)
"""


def every_way_back_is_kombus_own(start):
    server = start("ways", settings={**NO_SWEEPS, "visibility-timeout": "10s"})
    client, copy = server.client(), server.client(1)
    # Until kombu 5.3 all messages go back to the first list.
    priority = "n // 4" if celery_version() >= (5, 3) else "0"

    def run(act, url):
        run_client(["-c", WAYS.format(act=act, priority=priority)], url)

    run("send()\ntake()", server.url)
    taken = client.hlen("unacked")
    # Those of two queues are in both under one delivery tag.
    check("all are taken", taken == 40, taken)
    for tag, score in client.zrange("unacked_index", 0, -1, withscores=True):
        client.zadd("unacked_index", {tag: score - 60})
    for key in client.scan_iter("*"):
        client.copy(key, key, destination_db=1)
    run("restore()", server.url.replace("/0", "/1"))
    check("kombu has put all of its copy back", not copy.exists("unacked"))
    done = client.execute_command("HYGIENE.ORPHANS", "REQUEUE", "DB", "0")
    check("so have we", done["requeued"] == taken, done)

    def lists(of):
        names = of.scan_iter("*", _type="list", count=1000)
        return {name: of.lrange(name, 0, -1) for name in names}

    ours, theirs = lists(client), lists(copy)
    check("in the same lists", sorted(ours) == sorted(theirs), (sorted(ours), sorted(theirs)))
    least = 16 if priority != "0" else 4
    check(f"in {least} lists", len(ours) == least, sorted(ours))
    check("byte for byte, in the same order", ours == theirs)


def task_id(message):
    return json.loads(message)["headers"]["id"]


def ended(server, name):
    """The id of each task that a worker's log says to have succeeded, in order."""
    log = (server.dir / f"{name}.log").read_text(errors="replace")
    return re.findall(r"Task [\w.]+\[([0-9a-f-]+)\] succeeded", log)


def check_runs(server, sent, put_back):
    """Twice ran at most what the killed worker had begun and not acknowledged."""
    first, second = ended(server, "killed"), ended(server, "next")
    check("the next worker ran none twice", len(second) == len(set(second)), second)
    check("every task ran", set(first) | set(second) == set(sent), (first, second))
    twice = set(first) & set(second)
    check("twice ran only what kombu itself puts back", twice <= set(put_back), twice)


def the_background_puts_back_what_a_killed_worker_took_under_other_names(start):
    names = {"unacked-key": "taken", "unacked-index-key": "taken_at"}
    settings = {
        **names,
        "unacked-mutex-key": "taken_mutex",
        "visibility-timeout": "5s",
        "sweep-on-start": "no",
        "sweep-interval": "2s",
        "sweep-orphans": "requeue",
    }
    server = start("background", settings=settings)
    client = server.client()
    own = {"UNACKED": "1"}
    send = """
import json
from celery_app import add, late
print(json.dumps([late.delay(2).id for _ in range(4)] + [add.delay(n, 2).id for n in range(20)]))
"""
    with worker("killed", ENVIRONMENT, server.url, server.dir, **own) as killed:
        variables = {"REDIS_URL": server.url, "PYTHONPATH": str(EXAMPLES), **own}
        sent = json.loads(run_program(ENVIRONMENT, ["-c", send], 180, **variables))
        wait_for("prefetched messages", lambda: client.zcard("taken_at") >= 8)
        killed.kill()
    left = [task_id(json.dumps(json.loads(value)[0])) for value in client.hvals("taken")]
    check("the worker left its messages", len(left) >= 8, len(left))
    check("under its own names only", not client.exists("unacked"))
    # Nobody but the server itself is there.
    wait_for("their return", lambda: not client.exists("taken", "taken_at"), deadline_s=90)
    log = server.log_file.read_text(errors="replace")
    back = re.findall(r"ORPHANS REQUEUE by sweep-interval: (\d+) messages", log)
    check("all of that is logged", sum(map(int, back)) == len(left), back)
    with worker("next", ENVIRONMENT, server.url, server.dir, **own):
        wait_for(
            "the result of every task",
            lambda: all(
                '"SUCCESS"' in (client.get(f"celery-task-meta-{task}") or "") for task in sent
            ),
            deadline_s=90,
        )
        wait_for("nothing unacknowledged", lambda: not client.exists("taken"))
    check_runs(server, sent, left)


ASK = """
from celery_app import app
print(app.control.inspect(timeout={timeout}).ping())
"""


def a_killed_inspectors_answers_are_purged_and_a_live_one_gets_its_own(start):
    server = start("inspectors", settings=NO_SWEEPS)
    client = server.client()

    def lists():
        return list(client.scan_iter("*.reply.celery.pidbox", _type="list", count=1000))

    def bound():
        return client.scard("_kombu.binding.reply.celery.pidbox")

    def published():
        return client.info("commandstats").get("cmdstat_publish", {"calls": 0})["calls"]

    with worker("asked", ENVIRONMENT, server.url, server.dir) as asked:
        # A worker calls itself ready before it listens for questions.
        wait_for("a worker that listens", client.pubsub_numpat)
        # It answers only when the asker is dead.
        os.kill(asked.process.pid, signal.SIGSTOP)
        try:
            before = published()
            asker = spawn(
                [ENVIRONMENT / "bin/python", "-c", ASK.format(timeout=60)],
                server.dir / "asker.log",
                cwd=EXAMPLES,
                env={**os.environ, "REDIS_URL": server.url, "PYTHONDONTWRITEBYTECODE": "1"},
            )
            try:
                wait_for("the asker's binding", bound)
                wait_for("its question", lambda: published() > before)
            finally:
                kill(asker)
        finally:
            os.kill(asked.process.pid, signal.SIGCONT)
        wait_for("an answer that nobody takes", lists)
        check("it has no TTL", client.ttl(lists()[0]) == -1)
        young = client.execute_command("HYGIENE.ORPHANS", "PURGE", "reply_queue")
        check("an answer may still be waited for", young["purged"] == 0, young)

        def unread():
            report = client.execute_command("HYGIENE.ORPHANS", "OLDERTHAN", "2s")
            return reading.by_name(report["orphans"], "class")["reply_queue"]["orphans"]

        wait_for("an unread list", unread)
        purge = ["PURGE", "reply_queue", "OLDERTHAN", "2s"]
        purged = client.execute_command("HYGIENE.ORPHANS", *purge)
        told = (purged["purged"], purged["members_removed"])
        check("the list and its binding are gone", told == (1, 1) and not lists(), purged)
        check("no binding is left", not bound(), bound())
        answer = run_client(["-c", ASK.format(timeout=3)], server.url)
        check("a live inspect gets its answer", "pong" in answer, answer)


SCENARIOS = [
    a_killed_inspectors_answers_are_purged_and_a_live_one_gets_its_own,
    a_killed_workers_messages_go_back_and_every_task_runs,
    every_way_back_is_kombus_own,
    the_background_puts_back_what_a_killed_worker_took_under_other_names,
    two_thousand_tasks_leave_no_immortal_result,
    workers_are_counted_and_named,
    scan_tells_what_is_there,
    unread_beat_is_not_called_silent,
    beat_of_protocol_1_is_heard_and_told_silent,
    redbeat_is_seen_and_left_alone,
    trigger_follows_a_task_to_its_end,
]


def main():
    if ENVIRONMENT is None or not (ENVIRONMENT / "bin/python").exists():
        sys.exit("usage: run.py ENVIRONMENT [SCENARIO ...]")
    if not MODULE.exists():
        sys.exit(f"e2e: {MODULE} is not there; run make build")
    if server_version() < (7, 0, 0):
        sys.exit("e2e: needs PEXPIRETIME, so Redis 7.0 or newer")
    exit_on_sigterm()
    wanted = sys.argv[2:]
    chosen = [s for s in SCENARIOS if not wanted or s.__name__ in wanted]
    version = ".".join(str(part) for part in server_version())
    print(f"e2e: {ENVIRONMENT.name} against Redis {version}", flush=True)
    failed = 0
    for scenario in chosen:
        name = scenario.__name__
        if scenario is redbeat_is_seen_and_left_alone and not has_redbeat():
            print(f"  left out  {name}: no RedBeat in {ENVIRONMENT.name}", flush=True)
            continue
        begun = time.monotonic()
        try:
            with servers() as start:
                scenario(start)
        except (Failure, subprocess.TimeoutExpired) as failure:
            failed += 1
            print(f"  FAILED    {name}: {failure}", flush=True)
        except Exception:
            failed += 1
            print(f"  FAILED    {name}:\n{traceback.format_exc()}", flush=True)
        else:
            print(f"  ok        {name} ({time.monotonic() - begun:.0f} s)", flush=True)
    print(f"e2e: {ENVIRONMENT.name}: {failed} of {len(chosen)} failed", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
