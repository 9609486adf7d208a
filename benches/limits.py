"""Whether the module keeps to its limits: how long it works on the main thread at a
time with a million keys, and how long another client waits beside a value of 512 MB.

The module counts its own slices. Their CPU time is what it promises; their wall time
has in it what the machine gave to others, and single slices of either what the machine
itself took: a loop that only spins is measured meanwhile. And a pass with a slice that
is too long is run again: on the same keys it does the same work in the same order, so
what is its own comes back.
"""

import json
from dataclasses import dataclass
from datetime import datetime, timezone

import measure
from contenders import Job
from control import Control
from servers import DataSet, Server, fill, request, saved, wait_a_moment

SEP = "\x06\x16"

# What is run on each data set, what changes it last, and a part of it at a time.
PASSES = (
    "HYGIENE.SCAN",
    "HYGIENE.SCAN MEMORY OFF",
    "HYGIENE.ORPHANS",
    "HYGIENE.BEATSTATUS VERBOSE",
    "HYGIENE.DOCTOR",
    "HYGIENE.FIXTTL DRYRUN",
    "HYGIENE.FIXTTL TTL 7d MAXAGE 7d LIMIT {part}",
    "HYGIENE.ORPHANS REQUEUE LIMIT {part}",
)
# A pass that writes takes one of so many parts of the keys: the results of a broker are
# enough for each of its runs alone.
PARTS = 20
# The longest slice allowed, in ms of CPU, and how often a pass with a longer one is run.
LONGEST_MS = 2
MOST_RUNS = 8

# What is answered in one piece, two of them because a transaction cannot wait.
AT_ONCE = ("HYGIENE.BEATSTATUS", "HYGIENE.DOCTOR", "HYGIENE.STATS")
CALLS = 5

IDLE_S = 5
# Elements made by one script.
PORTION = 1_000


def message(queue, task):
    """As kombu 5.7 writes it; `#` stands for what tells one from another."""
    ident = "00000000-0000-4000-8000-#"
    return json.dumps(
        {
            "body": "W1sxLCAyXSwge30sIHt9XQ==",
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {
                "lang": "py",
                "task": task,
                "id": ident,
                "eta": None,
                "expires": None,
                "retries": 0,
                "root_id": ident,
                "parent_id": None,
                "argsrepr": "[1, 2]",
                "kwargsrepr": "{}",
                "origin": "gen4711@web-1",
                "ignore_result": False,
            },
            "properties": {
                "correlation_id": ident,
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": queue},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": ident,
            },
        }
    )


def scripted(script, count, *arguments):
    """Requests that run a script on the numbers below `count`, some at a time; `n` is
    the number as twelve digits. Each is answered by OK."""
    lines = [
        "for at = ARGV[1], ARGV[2] do",
        "local n = string.format('%012d', at)",
        "local function of(text) return (string.gsub(text, '#', n)) end",
        script,
        "end",
        "return redis.status_reply('OK')",
    ]
    for first in range(0, count, PORTION):
        last = min(first + PORTION, count) - 1
        yield request("EVAL", "\n".join(lines), "0", str(first), str(last), *arguments)


@dataclass(frozen=True)
class Crowd:
    """A broker with much of everything, `keys` keys in all. Three tenths of them are
    the hashes of RedBeat's entries; the schedule, the table of one exchange and what is
    not acknowledged have as many members. A tenth each are queues with a message, their
    tables, and lists of answers that nobody fetched; the rest are results."""

    keys: int

    def commands(self):
        much, some = self.keys * 3 // 10, self.keys // 10
        yield from DataSet(self.keys - much - 3 * some).commands()
        now = datetime.now(timezone.utc)
        yield from scripted(
            f"redis.call('SADD', '_kombu.binding.shop', n .. '{SEP}{SEP}shop.' .. n)", much
        )
        yield from scripted(
            "local tag = of('00000000-0000-4000-8000-#') "
            "redis.call('ZADD', 'unacked_index', ARGV[3] + at / 1000, tag) "
            "redis.call('HSET', 'unacked', tag, of(ARGV[4]))",
            much,
            str(int(now.timestamp()) - 86_400),
            f'[{message("celery", "shop.tasks.pack")}, "", "celery"]',
        )
        ran = {"__type__": "datetime", "timezone": "UTC", "microsecond": 0}
        ran |= {unit: getattr(now, unit) for unit in ("year", "month", "day")}
        ran |= {unit: getattr(now, unit) for unit in ("hour", "minute", "second")}
        every = {"__type__": "interval", "every": 3_600.0, "relative": False}
        entry = {"name": "entry.#", "task": "shop.tasks.entry.#", "args": None, "kwargs": {}}
        entry |= {"options": {}, "schedule": every, "enabled": True}
        yield from scripted(
            "local key = 'redbeat:entry.' .. n "
            "redis.call('HSET', key, 'definition', of(ARGV[4]), 'meta', ARGV[5]) "
            "redis.call('ZADD', 'redbeat::schedule', ARGV[3] + at % 3600, key)",
            much,
            str(int(now.timestamp())),
            json.dumps(entry),
            json.dumps({"last_run_at": ran, "total_run_count": 3}),
        )
        yield from scripted(
            "redis.call('LPUSH', 'queue.' .. n, of(ARGV[3])) "
            f"redis.call('SADD', '_kombu.binding.queue.' .. n, "
            f"'queue.' .. n .. '{SEP}{SEP}queue.' .. n) "
            "redis.call('LPUSH', of('00000000-0000-3000-8000-#') .. '.reply.celery.pidbox', '{}')",
            some,
            message("queue.#", "shop.tasks.send"),
        )

    def save(self, kind, folder):
        return saved(kind, folder, f"crowd-{self.keys}", self.commands())


def big_values(value_bytes):
    """A result, the only message of a queue, a field of a hash and a member of a set of
    that length, among a few thousand results."""
    yield from DataSet(10_000).commands()
    name = "celery-task-meta-00000000-0000-4000-8000-000000000000"
    yield request(
        "EVAL",
        f"redis.call('SETRANGE', '{name}', ARGV[1], 'x') "
        f"local value = redis.call('GET', '{name}') "
        "redis.call('RPUSH', 'celery', value) "
        "redis.call('HSET', 'session', 'data', value) "
        "redis.call('SADD', '_kombu.binding.celery', value) "
        "return redis.status_reply('OK')",
        "0",
        str(value_bytes - 1),
    )


def slices(job):
    stats = job.ask("HYGIENE.STATS")
    return {
        "slices": stats["slices_total"],
        "p999_us": stats["slice_p999_us"],
        "cpu_p999_us": stats["slice_cpu_p999_us"],
        "longest_us": stats["longest_slice_us"],
        "longest_cpu_us": stats["longest_slice_cpu_us"],
    }


def alone(job, words):
    """A pass when its slices are longest, beside the loop that only spins."""
    control = Control()
    try:
        with measure.deadline(job.deadline_s):
            job.ask_word(*words)
        return {"control": control.finish()}
    finally:
        control.kill()


def beside(job, words):
    """The same beside another client."""
    seen = measure.beside(job.server, lambda job: job.ask_word(*words), job.cli, job.deadline_s)
    return {"waited_us": seen["both"]["max_us"]}


def counted(job, run, words):
    """What such a run shows, and the slices of its pass."""
    job.ask_word("HYGIENE.STATS", "RESET")
    seen = run(job, words)
    # What a pass has kept is let go of after its reply.
    wait_a_moment()
    return seen | slices(job)


def passes(server, keys, cli, deadline_s):
    """Each pass, alone and beside another client."""
    job = Job(server, cli, deadline_s)
    for name in PASSES:
        words = name.format(part=keys // PARTS).split()
        named = {"run": name.partition(" LIMIT")[0]}
        for _ in range(MOST_RUNS):
            seen = counted(job, alone, words)
            yield named | {"beside": False} | seen
            if seen["longest_cpu_us"] <= LONGEST_MS * 1_000:
                break
        yield named | {"beside": True} | counted(job, beside, words)


def answers(server, cli, deadline_s):
    """What is answered in one piece, by the server's own clock."""
    job = Job(server, cli, deadline_s)
    for name in AT_ONCE:
        job.ask_word("CONFIG", "RESETSTAT")
        for _ in range(CALLS):
            with measure.deadline(deadline_s):
                job.ask_in_transaction(*name.split())
        stats = server.control.info("commandstats")[f"cmdstat_{name.lower()}"]
        yield {"run": name, "call_us": stats["usec_per_call"]}


def run(kind, given, folder, say):
    """The rows of all data sets, with their names."""
    keys, rounds, limits = given.keys, given.rounds, (given.cli, given.deadline)
    rows = []
    files = {}
    for name, data in (("results", DataSet(keys, old_every=2)), ("crowd", Crowd(keys))):
        say(f"{kind}: limits, data set {name}")
        files[name] = data.save(kind, folder)
    for turn in range(rounds):
        for name in (*files, "big values"):
            say(f"{kind}: limits, round {turn + 1} of {rounds}, {name}")
            with Server(kind, module=True, rdb=files.get(name)) as server:
                if name not in files:
                    fill(server.port, big_values(given.value_mb * 2**20), batch=1)
                idle = measure.idle(server, IDLE_S)["both"]["max_us"]
                found = [
                    *passes(server, keys, *limits),
                    *answers(server, *limits),
                ]
                rows += [{"data": name, "round": turn, "idle_us": idle} | row for row in found]
    for file in files.values():
        file.unlink()
    return rows
