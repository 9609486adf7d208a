"""Runs each example in each environment given, against a real server.

    tests/e2e/examples.py target/venv/celery-5.7 target/venv/celery-5.2

They hold the newest redis-py and an old 4.x. Each check compares with what was put
into the server, or with what the server says without the example's help.
"""

import json
import os
import re
import subprocess
import sys
import time
import traceback
from contextlib import ExitStack
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "examples"))
sys.dont_write_bytecode = True

import redis  # noqa: E402
from local_redis import MODULE, LocalRedis, free_port  # noqa: E402
from processes import EXAMPLES, Failure, exit_on_sigterm, spawn, wait_for, worker  # noqa: E402
from stage import installed  # noqa: E402

WATCHED = {"enforce": "no", "sweep-on-start": "no", "sweep-interval": "0", "max-age": "0"}
RESULTS = 50
OURS = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(EXAMPLES)}
# A message of a maintenance task.
SEND = "from celery_app import cleanup_orphaned_jobs as t; t.delay()"


def check(what, holds, seen=""):
    if not holds:
        raise Failure(f"not so: {what}; seen: {seen!r}")


def run(environment, words, status=0, **variables):
    """What an example prints; it must end with the status."""
    done = subprocess.run(
        [environment / "bin/python", *words],
        cwd=EXAMPLES,
        env={**os.environ, **OURS, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode != status:
        said = f"{done.stdout[-1000:]}\n{done.stderr[-2000:]}"
        raise Failure(f"{words[0]} ended with {done.returncode}, not {status}:\n{said}")
    return done.stdout


def seeded(server):
    """Results without TTL, a queue nobody reads, a message that was taken."""
    client = server.client()
    client.flushall()
    for n in range(RESULTS):
        client.set(f"celery-task-meta-{n}", '{"status": "SUCCESS", "result": 1}')
    return client


def immortal(client):
    return sum(client.ttl(key) == -1 for key in client.scan_iter("celery-task-meta-*"))


# Everything that answers fields, once plainly and once through the callbacks. The
# figures that move from call to call are left out.
REPLIES = """
import json, sys, redis
from replies import with_dicts
url, protocol, decode = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "str"
options = dict(decode_responses=decode)
if protocol == 3 or int(redis.__version__.split(".")[0]) >= 5:
    options["protocol"] = protocol
client = with_dicts(redis.Redis.from_url(url, **options))
MOVES = {"seconds", "by", "id", "used_memory_before", "used_memory_after"}
def plain(value):
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()
                if not name.endswith(("_ms", "_s")) and name not in MOVES}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return value.decode() if isinstance(value, bytes) else value
ask = lambda *words: plain(client.execute_command(*words))
print(json.dumps({
    "beatstatus": ask("HYGIENE.BEATSTATUS", "VERBOSE"),
    "scan": ask("HYGIENE.SCAN"),
    "dryrun": ask("HYGIENE.FIXTTL", "DRYRUN"),
    "orphans": ask("HYGIENE.ORPHANS"),
    "jobs": ask("HYGIENE.JOBS")[:3],
    "stats": sorted(name for name in client.execute_command("HYGIENE.STATS") if ":" not in name),
}, sort_keys=True))
"""


def callbacks_answer_the_same_dicts_whatever_the_protocol(environment, server):
    client = seeded(server)
    client.lpush("celery", "not a message")
    client.hset("unacked", "tag", "[]")
    protocols = (2, 3) if installed(environment, "redis") >= (5,) else (2,)
    told = {}
    for protocol in protocols:
        for decode in ("str", "bytes"):
            # Each from the same start: SCAN compares with the one before.
            client.execute_command("HYGIENE.SCAN")
            words = ["-c", REPLIES, server.url, str(protocol), decode]
            told[protocol, decode] = json.loads(run(environment, words))
    first = told[2, "str"]
    check("workers is a dict", isinstance(first["beatstatus"]["workers"]["live"], int), first)
    check("bound is a list", first["beatstatus"]["workers"]["bound"] == [], first)
    check("tasks is a list", first["beatstatus"]["tasks"] == [], first)
    check("watch has origins", first["beatstatus"]["watch"]["origins"] == [], first)
    check("a class is a dict", first["scan"]["classes"]["task_result"]["keys"] == RESULTS, first)
    check("no change is an empty dict", first["scan"]["since_last"]["classes"] == {}, first)
    check("findings are dicts", first["scan"]["findings"][0]["code"], first["scan"]["findings"])
    check("left are dicts", all("why" in entry for entry in first["dryrun"]["left"]), first)
    check("the hash of unacked is a dict", first["orphans"]["unacked"][0]["messages"] == 1, first)
    check("a job's result is a dict", first["jobs"][0]["result"]["scanned"] > RESULTS, first)
    check("stats has fields", "verdict_code" in first["stats"], first["stats"])
    for how, other in told.items():
        unlike = {part: (first[part], other[part]) for part in first if first[part] != other[part]}
        check(f"the same with {how}", not unlike, unlike)


def health_tells_by_its_status_whether_a_worker_reads(environment, server):
    client = seeded(server)
    where = {"REDIS_URL": server.url}
    quiet = run(environment, ["health.py", "celery_app"], 3, **where)
    check("an empty broker is unknown", quiet.startswith("unknown: "), quiet)
    run(environment, ["-c", SEND], **where)
    check("the message is there", client.llen("maintenance") == 1)
    for words in (["health.py", "celery_app:app"], ["health.py", "celery_app", "--broker"]):
        told = run(environment, words, 2, **where)
        check("no worker is critical", told.startswith("workers_absent: "), told)
    with worker("reads", environment, server.url, server.dir):
        wait_for("an empty queue", lambda: not client.exists("maintenance"))
        said = client.execute_command("HYGIENE.BEATSTATUS")
        told = run(environment, ["health.py", "celery_app"], 3, **where)
        check("as the server says", told == f"{said['verdict']}: {said['reason']}\n", (told, said))
    nobody = run(environment, ["health.py", "celery_app"], 3, REDIS_URL="redis://127.0.0.1:1/0")
    check("no server is unknown", nobody.startswith("unknown: "), nobody)


MANAGE = """
import sys
from django.conf import settings
settings.configure(INSTALLED_APPS=["shop"], CELERY_BROKER_URL=sys.argv.pop(1))
from django.core.management import execute_from_command_line
execute_from_command_line(sys.argv)
"""


def the_django_command_cleans_only_when_told_yes(environment, server):
    client = seeded(server)
    project = server.dir / f"project-{environment.name}"
    commands = project / "shop/management/commands"
    commands.mkdir(parents=True)
    for folder in (commands, commands.parent, commands.parent.parent):
        (folder / "__init__.py").touch()
    (commands / "hygiene.py").write_text((EXAMPLES / "django_command.py").read_text())
    (project / "manage.py").write_text(MANAGE)

    def manage(*words, status=0, url=server.url):
        words = [project / "manage.py", url, "hygiene", *words]
        path = os.pathsep.join([str(project), str(EXAMPLES)])
        return run(environment, words, status, PYTHONPATH=path)

    check("the words of DOCTOR", "TYPE NEXT" in manage(), manage())
    dry = manage("--clean")
    stamped = f"stamped          {RESULTS}\n"
    check("a dry run says so", stamped in dry and "Nothing was changed" in dry, dry)
    check("and changes nothing", immortal(client) == RESULTS)
    done = manage("--clean", "--yes")
    check("a run says what it did", stamped in done and "Nothing" not in done, done)
    check("and does it", immortal(client) == 0)
    manage(status=1, url="redis://127.0.0.1:1/0")


LISTEN = """
import asyncio, sys, redis.asyncio
from sweep_async import verdicts
async def main():
    client = redis.asyncio.Redis.from_url(sys.argv[1], decode_responses=True)
    async for change in verdicts(client):
        # What was before may end only now.
        if change["verdict"] == "workers_absent":
            print(change["verdict"], change["reason"])
            return
asyncio.run(asyncio.wait_for(main(), 30))
"""


def an_async_client_gets_the_result_of_a_sweep_and_changes_of_the_verdict(environment, server):
    client = seeded(server)
    told = json.loads(run(environment, ["sweep_async.py", server.url]))
    check("the reply of FIXTTL", told["stamped"] == RESULTS, told)
    check("every result has a TTL", immortal(client) == 0)

    client.flushall()
    listener = spawn(
        [environment / "bin/python", "-c", LISTEN, server.url],
        server.dir / f"listener-{environment.name}.log",
        env={**os.environ, **OURS},
    )
    try:
        wait_for("the listener", lambda: client.pubsub_numsub("hygiene:events")[0][1] == 1)
        run(environment, ["-c", SEND], REDIS_URL=server.url)
        wait_for("its end", lambda: listener.poll() is not None, deadline_s=90)
    finally:
        listener.kill()
    said = (server.dir / f"listener-{environment.name}.log").read_text()
    check("the change was told", said.startswith("workers_absent "), said)


def in_a_cluster_every_primary_answers(environment, _):
    with ExitStack() as stack:
        nodes = []
        for name in ("one", "two"):
            node = LocalRedis(name, WATCHED)
            # A node's bus has its port and 10,000.
            while node.port > 55_000:
                node.port = free_port()
            node.options += ["--port", str(node.port), "--cluster-enabled", "yes"]
            nodes.append(stack.enter_context(node))
        one, two = (node.client() for node in nodes)
        one.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 8191)
        two.execute_command("CLUSTER", "ADDSLOTSRANGE", 8192, 16383)
        one.execute_command("CLUSTER", "MEET", "127.0.0.1", nodes[1].port)

        def agreed():
            states = [str(client.execute_command("CLUSTER", "INFO")) for client in (one, two)]
            return all(re.search("cluster_state\\W+ok", state) for state in states)

        wait_for("a cluster", agreed)
        keys = redis.RedisCluster(host="127.0.0.1", port=nodes[0].port)
        for n in range(RESULTS):
            keys.set(f"celery-task-meta-{n}", '{"status": "SUCCESS"}')
        keys.close()
        shares = [client.dbsize() for client in (one, two)]
        check("both hold some", min(shares) > 0 and sum(shares) == RESULTS, shares)
        told = json.loads(run(environment, ["fan_out.py", "127.0.0.1", str(nodes[0].port)]))
        check("the sum of both", told["clean"]["stamped"] == RESULTS, told)
        check("a verdict of each", len(told["verdicts"]) == 2, told)


CHECKS = (
    callbacks_answer_the_same_dicts_whatever_the_protocol,
    health_tells_by_its_status_whether_a_worker_reads,
    the_django_command_cleans_only_when_told_yes,
    an_async_client_gets_the_result_of_a_sweep_and_changes_of_the_verdict,
    in_a_cluster_every_primary_answers,
)


def main():
    exit_on_sigterm()
    environments = [Path(word).resolve() for word in sys.argv[1:]]
    if not environments or not MODULE.exists():
        sys.exit("usage: examples.py ENVIRONMENT ...; the module must be built")
    failed = 0
    with LocalRedis("examples", {**WATCHED, "verdict-interval": "1s"}) as server:
        for environment in environments:
            version = ".".join(map(str, installed(environment, "redis")))
            print(f"examples: redis-py {version}", flush=True)
            for one in CHECKS:
                begun = time.monotonic()
                try:
                    one(environment, server)
                except Exception as error:
                    failed += 1
                    told = error if isinstance(error, Failure) else traceback.format_exc()
                    print(f"  FAILED    {one.__name__}: {told}", flush=True)
                else:
                    took = time.monotonic() - begun
                    print(f"  ok        {one.__name__} ({took:.0f} s)", flush=True)
        if failed:
            print(server.all_logs())
    count = len(CHECKS) * len(environments)
    print(f"examples: {failed} of {count} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
