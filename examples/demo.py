"""The incident and its end, on a throw-away Redis, with a real Celery worker.

    make demo

A Celery project with `result_expires=None` has filled its Redis with results
that never expire, and its beat has been gone for days. The module shows what is
there, cleans it up, and from then on keeps it clean, whatever the worker is
configured to do. Each step is checked against a count made without the module;
the demo exits with 1 when anything is not as told.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import incident
import reading
import redis
from local_redis import MODULE, ROOT, LocalRedis, server_version
from processes import Failure, exit_on_sigterm, run_program, wait_for, worker

ENVIRONMENT = Path(os.environ.get("CELERY_ENV", ROOT / "target/venv/celery-5.7"))
TTL_S = 3600
JITTER = 0.10
# What the demo itself may take between a stamp and the look at it.
SLACK_S = 60
BOLD, PLAIN = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")

# What the project's client does while the demo runs.
ORDERS = """
from celery import chord
from celery_app import add, broken, flaky, report, total
sent = [add.delay(i, i) for i in range({adds})]
sent += [flaky.delay(i) for i in range(10)] + [report.delay(3) for _ in range(10)]
sent += [broken.delay(i) for i in range(5)]
sent += [chord([add.s(i, 1) for i in range(20)])(total.s())]
for one in sent:
    one.get(timeout=40, propagate=False)
assert sent[-1].get() == sum(range(20)) + 20, "the chord's body has another sum"
"""

differences = []
step_number = 0


def step(title):
    global step_number
    step_number += 1
    print(f"\n{BOLD}{step_number}. {title}{PLAIN}\n")


def say(text):
    print(f"   {text}")


def table(rows, right=()):
    """Aligned columns; the first row is the head. Columns in `right` are numbers."""
    rows = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for number, row in enumerate(rows):
        cells = (
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths))
        )
        print("   " + "  ".join(cells).rstrip())
        if number == 0:
            print("   " + "  ".join("-" * width for width in widths))
    print()


def command(client, *words):
    line = " ".join(str(word) for word in words)
    print(f"   127.0.0.1> {line}\n")
    try:
        return reading.as_map(client.execute_command(*words))
    except redis.RedisError as error:
        raise Failure(f"{line}: {error}") from None


def fields(reply, *names):
    width = max(len(name) for name in names)
    for name in names:
        say(f"{name.ljust(width)}  {reply[name]}")
    print()


def expect(what, holds, seen):
    """Notes what is not as told, and goes on: one run shows all of it."""
    if not holds:
        print(f"   NOT AS TOLD: {what}; seen: {seen}")
        differences.append(what)


def expect_equal(what, seen, told):
    expect(f"{what} is {told}", seen == told, seen)


def mib(size):
    return f"{size / 1048576:.1f} MiB"


def send_orders(url, adds):
    """Publishes tasks with the project's own client and waits until all is done."""
    run_program(ENVIRONMENT, ["-c", ORDERS.format(adds=adds)], 60, REDIS_URL=url)


def quiet(client):
    """True once no task is queued or being worked on."""
    waiting = client.llen("celery") + client.llen("maintenance")
    return waiting == 0 and client.zcard("unacked_index") == 3  # the three etas


def result_keys(client):
    return set(client.scan_iter("celery-task-meta-*", count=2000))


def show_incident(client, redis_server):
    step("The incident: results that never expire, and no beat")
    now = incident.now_of(client)
    kinds, outcomes = incident.write_results(client, now)
    incident.write_broker_keys(client, now)
    broker = incident.broker_state(client)
    send_orders(redis_server.url, adds=200)
    wait_for("quiet worker", lambda: quiet(client))
    # Written by the live worker just now: dated and young.
    ttls = reading.result_ttls(client)
    fresh = len(ttls) - sum(kinds.values())
    kinds["this worker, Celery with result_expires=None"] = fresh
    outcomes["stamped"] += fresh
    table([("task results written by", "keys"), *kinds.items()], right={1})
    say("Beside them: a queue with two priorities, unacked messages that wait for")
    say("their eta, RedBeat's schedule, reply lists nobody reads, half a chord.")
    print()
    expect("the worker's own results have no TTL", fresh > 200, fresh)
    immortal = sum(ttl == -1 for ttl in ttls.values())
    expect_equal("results without TTL", immortal, len(ttls) - outcomes["kept"])
    return outcomes, broker


def show_scan(client, before):
    step("What is there: HYGIENE.SCAN")
    scan = command(client, "HYGIENE.SCAN")
    classes = reading.by_name(scan["classes"], "class")
    table(
        [("class", "keys", "without TTL", "bytes")]
        + [(name, c["keys"], c["no_ttl"], c["bytes"]) for name, c in classes.items()],
        right={1, 2, 3},
    )
    findings = [reading.as_map(finding) for finding in scan["findings"]]
    for finding in findings:
        say(f"[{finding['severity']}] {finding['code']}: {finding['detail']}")
        say(f"    -> {finding['advice']}")
    print()
    results = classes.get("task_result", {})
    expect_equal("SCAN's task_result keys", results.get("keys"), before["results"])
    expect_equal("SCAN's task_result no_ttl", results.get("no_ttl"), before["immortal"])
    expect_equal("SCAN's scanned", scan["scanned"], before["keys"])
    for name, at_least in (("queue", 2), ("unacked", 2), ("redbeat", 4), ("reply_queue", 2),
                           ("chord", 2), ("binding", 1)):  # fmt: skip
        found = classes.get(name, {}).get("keys", 0)
        expect(f"SCAN finds {at_least} {name} keys or more", found >= at_least, found)
    told = [f for f in findings if f["class"] == "task_result"]
    expect("SCAN has a finding on task_result", told, findings)


def show_beatstatus(client):
    step("Does periodic work happen? HYGIENE.BEATSTATUS")
    status = command(client, "HYGIENE.BEATSTATUS")
    publisher, workers, unacked = (
        reading.as_map(status[part]) for part in ("publisher", "workers", "unacked")
    )
    say(f"verdict    {status['verdict']}")
    say(f"reason     {status['reason']}")
    say(f"publisher  {publisher['state']} ({publisher['certainty']})")
    say(f"workers    {workers['live']} live, bound: {', '.join(workers['bound'])}")
    say(f"unacked    {unacked['count']}, of these stuck: {unacked['stuck']}")
    print()
    say("Beat's absence is not why the results have no TTL: Celery leaves expiry to")
    say("Redis, and result_expires=None tells it to set none. Two faults, not one.")
    expect_equal("BEATSTATUS's verdict", status["verdict"], "beat_silent")
    expect_equal("BEATSTATUS's live workers", workers["live"], 1)
    expect_equal("BEATSTATUS's unacked count", unacked["count"], 3)
    expect_equal("BEATSTATUS's stuck", unacked["stuck"], 0)
    expect("BEATSTATUS has a redbeat part", "redbeat" in status, sorted(status))


FIGURES = ("scanned", "already_had_ttl", "stamped", "deleted", "kept_exempt", "unreadable")


def show_dry_run(client, outcomes, before):
    step("What would a clean-up do? HYGIENE.FIXTTL DRYRUN")
    dry = command(client, "HYGIENE.FIXTTL", "DRYRUN")
    fields(dry, *FIGURES)
    expect_equal("DRYRUN's deleted", dry["deleted"], outcomes["deleted"])
    expect_equal("DRYRUN's stamped", dry["stamped"], outcomes["stamped"] + outcomes["undated"])
    expect_equal("DRYRUN's unreadable", dry["unreadable"], outcomes["undated"])
    expect_equal("DRYRUN's already_had_ttl", dry["already_had_ttl"], outcomes["kept"])
    after = reading.keyspace(client)
    for what in ("keys", "results", "immortal"):
        expect_equal(f"the number of {what} after DRYRUN", after[what], before[what])
    return dry


def show_fixttl(client, dry):
    step("The clean-up: HYGIENE.FIXTTL")
    fixed = command(client, "HYGIENE.FIXTTL")
    fields(fixed, *FIGURES, "bytes_freed", "used_memory_before", "used_memory_after", "server_ms")
    for figure in ("stamped", "deleted", "kept_exempt", "unreadable"):
        expect_equal(f"FIXTTL's {figure}", fixed[figure], dry[figure])
    # A walk may meet a key twice when the table shrinks under it.
    for figure in ("scanned", "already_had_ttl"):
        told = f"FIXTTL's {figure} is {dry[figure]} or more"
        expect(told, fixed[figure] >= dry[figure], fixed[figure])
    # The 250 that had their own TTL kept it.
    ttls = reading.result_ttls(client)
    stamped = [ttl for ttl in ttls.values() if ttl <= TTL_S]
    expect_equal("keys with the default TTL", len(stamped), dry["stamped"])
    low = TTL_S * (1 - JITTER) - SLACK_S
    spread = f"{min(stamped, default=-1):.0f} to {max(stamped, default=-1):.0f} s"
    expect(f"stamped TTLs lie above {low:.0f} s", all(ttl > low for ttl in stamped), spread)
    expect("no result is without TTL", -1 not in ttls.values(), spread)
    say(f"TTLs given: {spread}, spread so that not all expire in one second.")
    print()
    again = command(client, "HYGIENE.FIXTTL")
    fields(again, "already_had_ttl", "stamped", "deleted")
    expect_equal("a second run's stamped", again["stamped"], 0)
    expect_equal("a second run's deleted", again["deleted"], 0)


def show_enforcement(client, redis_server):
    step("From now on: CONFIG SET hygiene.enforce yes")
    reading.configure(client, "enforce", "yes")
    old = result_keys(client)
    say("The worker goes on with result_expires=None. Its new results:")
    print()
    begun = time.monotonic()
    send_orders(redis_server.url, adds=100)
    wait_for("quiet worker", lambda: quiet(client))
    passed = time.monotonic() - begun
    new = {key: ttl for key, ttl in reading.result_ttls(client).items() if key not in old}
    table(
        [("new result", "TTL, s")]
        + [(key, f"{ttl:.0f}") for key, ttl in sorted(new.items())[:4]]
        + [(f"... {len(new)} in all, shortest", f"{min(new.values(), default=-1):.0f}")],
        right={1},
    )
    expect("the worker wrote new results", len(new) > 100, len(new))
    # The hook stamps exactly: no jitter.
    low = TTL_S - passed - 5
    wrong = {key: ttl for key, ttl in new.items() if not low <= ttl <= TTL_S}
    expect(f"each new result has between {low:.0f} and {TTL_S} s", not wrong, wrong)


def show_outcome(client, before, broker_before):
    step("Before and after")
    after = reading.keyspace(client)
    rows = [("", "before", "after")]
    for what, name in (("keys", "keys in Redis"), ("results", "task results"),
                       ("immortal", "task results without TTL")):  # fmt: skip
        rows.append((name, before[what], after[what]))
    rows.append(("memory used", mib(before["memory"]), mib(after["memory"])))
    broker_after = incident.broker_state(client)
    unchanged = sum(broker_after.get(key) == value for key, value in broker_before.items())
    rows.append(("broker keys unchanged", len(broker_before), unchanged))
    table(rows, right={1, 2})
    expect_equal("results without TTL at the end", after["immortal"], 0)
    expect("memory fell", after["memory"] < before["memory"], after["memory"] - before["memory"])
    for key, value in broker_before.items():
        expect_equal(f"broker key {key!r}", broker_after.get(key), value)


def tell(redis_server):
    client = redis_server.client()
    with worker("worker", ENVIRONMENT, redis_server.url, redis_server.dir):
        outcomes, broker_before = show_incident(client, redis_server)
        before = reading.keyspace(client)
        show_scan(client, before)
        show_beatstatus(client)
        dry = show_dry_run(client, outcomes, before)
        show_fixttl(client, dry)
        show_enforcement(client, redis_server)
        show_outcome(client, before, broker_before)


def main():
    exit_on_sigterm()
    if not MODULE.exists():
        raise Failure(f"{MODULE} is not there; run make build")
    # To show the incident the module must first only watch.
    asleep = {"enforce": "no", "sweep-on-start": "no", "sweep-interval": "0"}
    version = ".".join(str(part) for part in server_version())
    with LocalRedis("demo", asleep) as redis_server:
        print(f"Redis {version} with redis.conf and the module, on port {redis_server.port}.")
        print(f"Celery from {ENVIRONMENT.name}, result_expires=None, one worker, no beat.")
        print("The module is loaded, its enforcement and its sweeps are off for now.")
        try:
            tell(redis_server)
        except BaseException:
            print(redis_server.log_tail())
            raise
        if differences:
            print(redis_server.log_tail())


if __name__ == "__main__":
    try:
        main()
    except (Failure, subprocess.TimeoutExpired) as failure:
        sys.exit(f"\ndemo: FAILED: {failure}")
    if differences:
        sys.exit(f"\ndemo: FAILED: {len(differences)} things are not as told (see above)")
    print("\ndemo: everything is as told.")
