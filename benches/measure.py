"""One contender's run: what it costs alone, and what another client feels of it."""

import json
import resource
import select
import signal
import subprocess
import threading
import time
from contextlib import contextmanager

from contenders import TOOLS, Job
from processes import Failure
from servers import PROBE_KEY, wait_a_moment


class OutOfTime(Exception):
    """The deadline has passed. Not a TimeoutError: clients would try again."""


@contextmanager
def deadline(seconds):
    """Ends what is inside, whatever it waits for. In the main thread only."""

    def end(*_):
        raise OutOfTime(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def own_cpu_s():
    """The CPU time of this process and of the clients it has started."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def alone(server, run, cli, deadline_s):
    """What a run costs when nobody else is there."""
    job = Job(server, cli, deadline_s)
    server.control.execute_command("SLOWLOG", "RESET")
    before, cpu_before = server.counters(), own_cpu_s()
    started = time.perf_counter()
    with deadline(deadline_s):
        told = run(job)
    wall_s = time.perf_counter() - started
    client_cpu_s = own_cpu_s() - cpu_before
    server.settle()
    after = server.counters()
    keys, with_ttl = server.keys()
    return {
        "wall_s": wall_s,
        **{name: after[name] - before[name] for name in before},
        "client_cpu_s": client_cpu_s,
        "slow_commands": server.slow_commands(),
        "told": told,
        # Without the probe's key.
        "keys_after": keys - 1,
        "with_ttl_after": with_ttl,
    }


class Probe:
    """The other client, in a process of its own."""

    def __init__(self, server, most_s):
        self.process = subprocess.Popen(
            [TOOLS / "probe", str(server.port), PROBE_KEY, str(int(most_s) + 1)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            if self._line(10) != "ready\n":
                raise Failure("the probe did not start")
        except BaseException:
            self.kill()
            raise

    def _line(self, wait_s):
        readable, _, _ = select.select([self.process.stdout], [], [], wait_s)
        if not readable:
            raise Failure(f"the probe said nothing for {wait_s} s")
        return self.process.stdout.readline()

    def finish(self):
        """Ends it and returns what it saw."""
        try:
            self.process.stdin.close()
            return json.loads(self._line(60))
        finally:
            self.kill()

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def idle(server, seconds):
    """What the other client sees of a server that has nothing else to do."""
    wait_a_moment()
    probe = Probe(server, seconds + 60)
    try:
        time.sleep(seconds)
        return probe.finish()
    finally:
        probe.kill()


def beside(server, run, cli, deadline_s):
    """What the other client sees while a run goes on."""
    wait_a_moment()
    job = Job(server, cli, deadline_s)
    probe = Probe(server, deadline_s + 60)
    try:
        with deadline(deadline_s):
            run(job)
        return probe.finish()
    finally:
        probe.kill()


@contextmanager
def watched_memory(server):
    """A list of the memory in use, asked twenty times a second, which is rare enough
    not to show in the server's CPU time."""
    seen, over = [], threading.Event()

    def watch():
        with server.client(socket_timeout=10) as client:
            while not over.wait(0.05):
                seen.append(client.info("memory")["used_memory"])

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()
