"""What the module adds to each write, measured with redis-benchmark.

Servers stand side by side, one of them asked at a time: one without the module,
one with it, and a second one without it. What the second one differs from the
first is what the machine makes of equal servers. Two more carry the least module
(baseline.rs) that hears of each write, and that stamps a result: what those cost
is the server's, and no module can be cheaper.
"""

import re
import subprocess
from contextlib import ExitStack

from contenders import TOOLS, TTL_S
from processes import Failure
from servers import PREFIX, Server

SERVERS = {"without": False, "with": True, "without again": False}
# What the least module is asked to do, and with which names.
LEAST = {"events": "other", "stamp": "result"}
NAMES = {"other": "session-data:__rand_int__", "result": f"{PREFIX}__rand_int__"}
VALUE = "x" * 200
COMMANDS = {
    "SET": ("SET", "KEY", VALUE),
    "SET EX": ("SET", "KEY", VALUE, "EX", str(TTL_S)),
    "SETEX": ("SETEX", "KEY", str(TTL_S), VALUE),
    "LPUSH": ("LPUSH", "KEY", VALUE),
    "HSET": ("HSET", "KEY", "field", VALUE),
    "INCR": ("INCR", "KEY"),
}
PIPELINES = (1, 16)
CLIENTS = 50
NAMES_IN_USE = 100_000
DEADLINE_S = 120


def benchmark(program, server, command, name, pipeline, requests):
    """One run of redis-benchmark with one of the commands on names of one kind."""
    words = [NAMES[name] if word == "KEY" else word for word in COMMANDS[command]]
    return run(program, server, words, pipeline, requests)


def run(program, server, words, pipeline, requests, last=None):
    """One run of redis-benchmark on an empty server. `last` is one more word, too long
    for a command line."""
    server.control.flushall()
    server.settle()
    before = server.counters()["server_cpu_s"]
    done = subprocess.run(
        [program, "-p", str(server.port), "-c", str(CLIENTS), "-n", str(requests)]
        + ["-P", str(pipeline), "-r", str(NAMES_IN_USE), "--csv"] + (["-x"] if last else []) + list(words),
        input=last,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    cpu_s = server.counters()["server_cpu_s"] - before
    # Not read as CSV: it names the command, and a message is full of quotes.
    figures = re.findall(r'"(\d+\.\d+)"', done.stdout.strip().rpartition("\n")[2])
    if done.returncode != 0 or not figures:
        raise Failure(f"redis-benchmark: {done.stdout[-300:]} {done.stderr[-300:]}")
    keys, with_ttl = server.keys()
    return {
        "per_s": float(figures[0]),
        "cpu_us": cpu_s / requests * 1e6,
        "keys": keys,
        "with_ttl": with_ttl,
    }


def loads(kind):
    """What each server loads."""
    least = {what: (TOOLS / "baseline", what) for what in LEAST}
    if not kind.has_jobs:
        del least["stamp"]
    return SERVERS | least


def measure(kind, program, rounds, requests, say):
    """All commands on all servers, the order of the servers turned each round."""
    measured = []
    for turn in range(rounds):
        with ExitStack() as stack:
            servers = {
                label: stack.enter_context(Server(kind, module))
                for label, module in loads(kind).items()
            }
            # The first run on a new server is slower: its memory comes from the kernel.
            for server in servers.values():
                benchmark(program, server, "SET", "other", 16, NAMES_IN_USE)
            for pipeline in PIPELINES:
                say(f"{kind}: hook, round {turn + 1} of {rounds}, pipeline {pipeline}")
                # About as long as without a pipeline.
                count = requests if pipeline == 1 else 4 * requests
                for command in COMMANDS:
                    for name in NAMES:
                        asked = [
                            (label, server)
                            for label, server in servers.items()
                            if label in SERVERS or (command == "SET" and LEAST[label] == name)
                        ]
                        runs = {
                            label: benchmark(program, server, command, name, pipeline, count)
                            for label, server in (asked if turn % 2 == 0 else asked[::-1])
                        }
                        measured.append(
                            {
                                "round": turn,
                                "pipeline": pipeline,
                                "command": command,
                                "name": name,
                                "runs": runs,
                            }
                        )
    return measured
