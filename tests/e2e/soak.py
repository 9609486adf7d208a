#!/usr/bin/env python3
"""Real workers, beat, sweeps and kills of every part, for a time, on a seed.

At the end, whatever happened: every task that was published has run, no result is
without TTL, primary and replica hold the same, what the module takes beside the data
is little, and no slice was longer than allowed, or than what the machine does to a loop
that only spins. Prints what it did and found, and draws what was measured meanwhile to
target/soak/.

Usage: tests/e2e/soak.py ENVIRONMENT [--seconds N] [--seed N] [--without STEP ...]

Without the steps kill_worker and kill_primary not one task may be missing.
"""

import argparse
import random
import sys
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(ROOT / "examples"), str(ROOT / "benches"), str(HERE)]

import plots  # noqa: E402
import redis  # noqa: E402
import soakapp  # noqa: E402
from control import Control  # noqa: E402
from local_redis import LocalRedis  # noqa: E402
from processes import Failure, beat, exit_on_sigterm, kill, wait_for, worker  # noqa: E402

WORKERS = 2
# The server's memory beside its data and its clients' buffers, when all keys are gone.
MOST_LEFT = 8 * 1024 * 1024
# A slice is `slice-us`, 500 us, and the one key in hand, by processor time: the machine
# is shared with the workers, which may have the processor at any moment.
LONGEST_SLICE_US = 2_000
# At the end nothing runs for so long: what has not run then never will.
REST_S = 120
# The publisher waits while more lie in the queue: what cannot be worked off is no test.
MOST_WAITING = 2_000
# Tasks between two looks at the queue.
LOOK_EVERY = 200
MEASURED = ("used_memory", "keys", "queue", "without_ttl", "longest_slice_cpu_us", "published", "ran")


class Publisher(threading.Thread):
    """Publishes numbered tasks, as fast as they are worked off; what the broker did not
    confirm is tried again."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.server, url = server, server.url
        self.app = soakapp.app
        self.app.conf.update(broker_url=url, result_backend=url)
        self.published = 0
        self.stopped = threading.Event()

    def run(self):
        while not self.stopped.is_set():
            try:
                self.app.send_task("soak.work", (self.published,), retry=False)
            except Exception:
                time.sleep(0.2)
                continue
            self.published += 1
            time.sleep(0.004)
            if self.published % LOOK_EVERY == 0:
                self.keep_step()

    def keep_step(self):
        """Waits until the queue is short."""
        while not self.stopped.is_set():
            try:
                if self.server.client().llen("celery") <= MOST_WAITING:
                    return
            except redis.RedisError:
                pass
            time.sleep(0.2)

    def stop(self):
        self.stopped.set()
        self.join(30)


class Soak:
    def __init__(self, environment, seed, without=()):
        self.environment = environment
        self.steps = [step for step in self.STEPS if step.__name__ not in without]
        self.dice = random.Random(seed)
        settings = {"sweep-interval": "5", "default-ttl": "1h", "visibility-timeout": "10"}
        self.primary = LocalRedis("primary", settings)
        self.replica = LocalRedis("replica", settings, replica_of=self.primary)
        for server in (self.primary, self.replica):
            server.options += ["--appendonly", "yes", "--appendfsync", "always"]
            server.options += ["--enable-debug-command", "yes"]
        self.workers, self.beat, self.spinning, self.started = [], None, None, 0
        self.done = []
        self.rows = []
        self.begun = time.monotonic()

    def start(self):
        self.spinning = Control()
        self.primary.start()
        self.replica.start()
        for _ in range(WORKERS):
            self.start_worker()
        self.start_beat()
        self.publisher = Publisher(self.primary)
        self.publisher.start()

    def stop(self):
        for process in [*self.workers, self.beat, self.spinning]:
            if process:
                process.kill()
        for server in (self.replica, self.primary):
            server.stop()

    def celery(self, start, name, *options):
        self.started += 1
        name = f"{name}{self.started}"
        app = HERE / "soakapp.py"
        return start(name, self.environment, self.primary.url, self.primary.dir, *options, app=app)

    def start_worker(self):
        self.workers.append(self.celery(worker, "worker"))

    def start_beat(self):
        self.beat = self.celery(beat, "beat")

    # What can happen. Each leaves everything running again.

    def kill_worker(self):
        victim = self.workers.pop(self.dice.randrange(len(self.workers)))
        victim.kill()
        self.start_worker()

    def stop_worker(self):
        victim = self.workers.pop(0)
        victim.stop()
        self.start_worker()

    def kill_beat(self):
        self.beat.kill()
        self.start_beat()

    def kill_primary(self):
        kill(self.primary.process)
        self.primary.start()

    def kill_replica(self):
        kill(self.replica.process)
        self.replica.start()

    def cut_link(self):
        self.ask("CLIENT", "KILL", "TYPE", "replica")

    def rewrite(self):
        self.ask("BGREWRITEAOF")

    def save(self):
        self.ask("BGSAVE")

    def pause(self):
        self.ask("CLIENT", "PAUSE", 300, "WRITE")

    def fix(self):
        self.ask("HYGIENE.FIXTTL", "ASYNC")

    def delete_old(self):
        self.ask("HYGIENE.FIXTTL", "MAXAGE", "20s", "ASYNC")

    def scan(self):
        self.ask("HYGIENE.SCAN", "ASYNC")

    def look(self):
        for command in ("BEATSTATUS", "DOCTOR", "JOBS"):
            self.ask(f"HYGIENE.{command}")

    def requeue(self):
        self.ask("HYGIENE.ORPHANS", "REQUEUE", "ASYNC")

    def strip(self):
        """Takes the TTL of some results: the sweep has to find them."""
        client = self.primary.client()
        for key in list(client.scan_iter("celery-task-meta-*", count=100))[:200]:
            client.persist(key)

    def ask(self, *words):
        """What is refused is a part of life here."""
        try:
            return self.primary.client().execute_command(*words)
        except redis.RedisError as error:
            return error

    STEPS = (
        kill_worker, kill_worker, stop_worker, kill_beat, kill_primary, kill_replica,
        cut_link, rewrite, save, pause, fix, delete_old, scan, look, requeue, strip,
    )  # fmt: skip

    def step(self):
        what = self.dice.choice(self.steps)
        self.done.append(what.__name__)
        try:
            what(self)
        except redis.ConnectionError:
            pass

    def measure(self):
        try:
            client = self.primary.client()
            info = client.info("everything") | client.info("hygiene")
            row = {
                "used_memory": info["used_memory"],
                "keys": client.dbsize(),
                "queue": client.llen("celery"),
                "without_ttl": client.dbsize() - info.get("db0", {}).get("expires", 0),
                "longest_slice_cpu_us": info["hygiene_longest_slice_cpu_us"],
                "published": self.publisher.published,
                "ran": client.scard(soakapp.RAN),
            }
        except redis.RedisError:
            return
        self.rows.append((time.monotonic() - self.begun, row))

    def run(self, seconds):
        end_at = self.begun + seconds
        next_step = self.begun + 3
        while time.monotonic() < end_at:
            self.measure()
            if time.monotonic() >= next_step:
                self.step()
                next_step = time.monotonic() + self.dice.uniform(0.5, 4)
            time.sleep(0.5)

    # What must hold at the end.

    def faults(self):
        """What does not hold, a sentence each."""
        self.publisher.stop()
        client = self.primary.client()
        told = []
        missing = self.rest(client)
        self.measure()
        self.lost = missing
        if missing > self.most_lost():
            told.append(
                f"{missing} of {self.publisher.published} published tasks never ran, expected at most {self.most_lost()}"
            )
        self.beat.stop()
        for process in self.workers:
            process.stop()
        self.beat, self.workers = None, []
        client.execute_command("HYGIENE.FIXTTL")
        bare = sum(client.ttl(key) == -1 for key in client.scan_iter("celery-task-meta-*", count=1000))
        if bare:
            told.append(f"{bare} results are without TTL")
        info = client.info("hygiene")
        if info["hygiene_faults_total"]:
            told.append(f"{info['hygiene_faults_total']} internal faults")
        longest = max(row["longest_slice_cpu_us"] for _, row in self.rows)
        self.control = self.spinning.finish()
        # Of what has nothing to do but spin the machine takes as much at times.
        if longest > max(LONGEST_SLICE_US, self.control["longest_cpu_us"]):
            told.append(f"a slice of {longest} us")
        told += self.differences(client)
        client.flushall()
        left = wait_for("memory to come to rest", lambda: self.left(client), 30)
        if left > MOST_LEFT:
            told.append(f"{left} bytes are left when all keys are gone")
        self.left_bytes = left
        return told

    def most_lost(self):
        """kombu takes a message from its list and notes it as taken in two steps
        (`kombu/transport/redis.py`, `_brpop_read`, `QoS.append`): who is killed in between
        loses it, with or without this module. One for each worker whose kill, or whose
        server's, can have come there."""
        workers = self.done.count("kill_worker")
        return workers + WORKERS * self.done.count("kill_primary")

    def rest(self, client):
        """Waits until everything published has run, or nothing runs any more; how many
        have not."""
        wanted = {str(n) for n in range(self.publisher.published)}
        missing, changed = len(wanted), time.monotonic()
        while missing and time.monotonic() - changed < REST_S:
            time.sleep(1)
            left = len(wanted - client.smembers(soakapp.RAN))
            if left != missing:
                missing, changed = left, time.monotonic()
        return missing

    def differences(self, client):
        def same():
            client.execute_command("WAIT", 1, 1000)
            digests = {s.client().execute_command("DEBUG", "DIGEST") for s in (self.primary, self.replica)}
            return len(digests) == 1

        try:
            wait_for("the same data on both", same, 60, 1)
        except Failure:
            return ["primary and replica hold different data"]
        return []

    @staticmethod
    def left(client):
        memory = client.info("memory")
        spent = ("used_memory_startup", "mem_clients_normal", "mem_clients_slaves", "mem_aof_buffer")
        backlog = memory.get("mem_replication_backlog", 0) + memory.get("mem_total_replication_buffers", 0)
        return max(1, memory["used_memory"] - sum(memory.get(name, 0) for name in spent) - backlog)


def plot(rows, subtitle):
    """Each measured figure over time, as a share of its own most."""
    left, right, top, bottom = 60, 30, plots.TOP, 330
    most_s = max(seconds for seconds, _ in rows) or 1

    def across(seconds):
        return left + seconds / most_s * (plots.WIDTH - left - right)

    parts = []
    for share in (0, 25, 50, 75, 100):
        y = bottom - share / 100 * (bottom - top)
        parts += [plots.line(left, y, plots.WIDTH - right, y, plots.GRID), plots.text(left - 8, y + 4, f"{share} %", "end", 10)]
    for tick in plots.ticks(0, most_s, False):
        parts.append(plots.text(across(tick), bottom + 16, f"{plots.number(tick)} s", "middle", 10))
    names = []
    for at, name in enumerate(MEASURED[:5]):
        most = max(row[name] for _, row in rows)
        names.append(f"{name} (100 % = {plots.number(most)})")
        points = " ".join(
            f"{across(s):.1f},{bottom - (row[name] / most if most else 0) * (bottom - top):.1f}" for s, row in rows
        )
        parts.append(f'<polyline points="{points}" fill="none" stroke="{plots.COLOURS[at]}" stroke-width="1.5"/>')
    # Five names are longer than the picture is wide, so they stand below.
    for at, name in enumerate(names):
        parts.append(plots.text(left, bottom + 38 + 15 * at, name, colour=plots.COLOURS[at]))
    return plots.frame(bottom + 120, "Soak", subtitle, (), parts)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("environment", type=Path)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--without", nargs="*", default=[], metavar="STEP")
    chosen = parser.parse_args()
    exit_on_sigterm()
    print(f"soak: seed {chosen.seed}, {chosen.seconds} s", flush=True)
    soak = Soak(chosen.environment.absolute(), chosen.seed, chosen.without)
    try:
        soak.start()
        soak.run(chosen.seconds)
        faults = soak.faults()
    finally:
        soak.stop()
    counts = {name: soak.done.count(name) for name in dict.fromkeys(soak.done)}
    last = soak.rows[-1][1]
    longest = max(row["longest_slice_cpu_us"] for _, row in soak.rows)
    print(f"soak: {len(soak.done)} steps: " + ", ".join(f"{name} {n}" for name, n in counts.items()))
    print(
        f"soak: {last['published']} tasks published, {last['ran']} ran, {soak.lost} lost by kombu; "
        f"{soak.left_bytes} bytes left without keys"
    )
    print(
        f"soak: longest slice {longest} us of CPU; of a loop that only spins, {soak.control['pieces']} pieces: "
        f"99.9 % {soak.control['cpu_p999_us']} us, longest {soak.control['longest_cpu_us']} us"
    )
    folder = ROOT / "target/soak"
    folder.mkdir(parents=True, exist_ok=True)
    picture = folder / f"soak-{chosen.seed}.svg"
    picture.write_text(plot(soak.rows, f"seed {chosen.seed}, {chosen.seconds} s, {len(soak.done)} steps"))
    print(f"soak: {picture.relative_to(ROOT)}")
    for fault in faults:
        print(f"soak: FAILED: {fault}")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
