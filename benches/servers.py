"""Servers for one measurement each, and the data sets they start with."""

import os
import random
import re
import shutil
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import redis
from local_redis import MODULE, free_port
from processes import Failure, kill, spawn, wait_for

PREFIX = "celery-task-meta-"
# The key that the probe gets. It is no task result, so nothing touches it.
PROBE_KEY = "probe"

# A command slower than this is noted.
SLOW_US = 2_000
LOAD_DEADLINE_S = 600

# No persistence: every contender's writes would cost the same there, and a save
# child would come at another moment in each run.
SETTINGS = {
    "bind": "127.0.0.1",
    "save": "",
    "appendonly": "no",
    "slowlog-log-slower-than": SLOW_US,
    "slowlog-max-len": 100_000,
}
# Defaults but for the background sweep, which would work beside what is measured.
MODULE_SETTINGS = {"sweep-on-start": "no", "sweep-interval": "0"}
OURS = [MODULE, *(word for setting in MODULE_SETTINGS.items() for word in setting)]


@dataclass(frozen=True)
class Kind:
    """A server program."""

    binary: Path
    name: str
    version: tuple

    @classmethod
    def of(cls, binary):
        text = subprocess.run(
            [str(binary), "--version"], capture_output=True, text=True, check=True, timeout=10
        ).stdout
        found = re.search(r"(\w+) server v=(\d+)\.(\d+)\.(\d+)", text)
        if not found:
            raise Failure(f"cannot tell the version of {binary} from {text!r}")
        return cls(Path(binary), found[1], tuple(int(part) for part in found.groups()[1:]))

    def __str__(self):
        return f"{self.name} {'.'.join(map(str, self.version))}"

    @property
    def is_redis_before_8(self):
        return self.name == "Redis" and self.version < (8,)

    @property
    def has_jobs(self):
        """Whether a module may act at the end of the unit that raised an event."""
        return self.name == "Valkey" or self.version >= (7, 2)


class Server:
    """A running server with a data set, gone at the end. A context manager. `module`
    loads the module, or is the words behind `loadmodule` for another one."""

    def __init__(self, kind, module=False, rdb=None):
        self.kind = kind
        self.module = module
        self.rdb = rdb
        self.port = None
        self.process = None
        self.dir = None
        self.control = None

    def __enter__(self):
        # Not in the file system of the project, which may be a slow one.
        self.dir = Path(tempfile.mkdtemp(prefix="hygiene-bench-"))
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self):
        if self.rdb is not None:
            os.link(self.rdb, self.dir / "dump.rdb")
        self.port = free_port()
        command = [self.kind.binary, "--port", self.port, "--dir", self.dir]
        for name, value in SETTINGS.items():
            command += [f"--{name}", value]
        if self.module:
            command += ["--loadmodule", *(OURS if self.module is True else self.module)]
        self.process = spawn(command, self.dir / "log")
        self.control = self.client(socket_timeout=60)
        wait_for(f"answer from {self.kind}", self._answers, LOAD_DEADLINE_S, every_s=0.02)

    def _answers(self):
        if self.process.poll() is not None:
            raise Failure(f"{self.kind} ended:\n{(self.dir / 'log').read_text()[-2000:]}")
        try:
            return self.control.ping()
        except (redis.ConnectionError, redis.BusyLoadingError, redis.TimeoutError):
            return False

    def __exit__(self, *_):
        if self.control is not None:
            self.control.close()
        # There is nothing to save, so nothing to wait for.
        if self.process is not None:
            kill(self.process)
        shutil.rmtree(self.dir, ignore_errors=True)

    def client(self, **options):
        """A client; one of redis-py as everybody has it, but for its timeout."""
        return redis.Redis(port=self.port, protocol=3, **options)

    def settle(self):
        """Waits until what was unlinked is freed: that is part of the work."""
        wait_for(
            "end of lazy freeing",
            lambda: self.control.info("memory").get("lazyfree_pending_objects", 0) == 0,
            every_s=0.02,
        )

    def counters(self):
        cpu, stats = self.control.info("cpu"), self.control.info("stats")
        return {
            "server_cpu_s": cpu["used_cpu_user"] + cpu["used_cpu_sys"],
            "children_cpu_s": cpu["used_cpu_user_children"] + cpu["used_cpu_sys_children"],
            "received_bytes": stats["total_net_input_bytes"],
            "sent_bytes": stats["total_net_output_bytes"],
        }

    def slow_commands(self):
        return self.control.execute_command("SLOWLOG", "LEN")

    def keys(self):
        """How many keys there are, and how many of them have a TTL."""
        db = self.control.info("keyspace").get("db0", {"keys": 0, "expires": 0})
        return db["keys"], db["expires"]

    def memory(self):
        memory = self.control.info("memory")
        return memory["used_memory"], memory["used_memory_rss"]


# --- Data sets ------------------------------------------------------------------


@dataclass(frozen=True)
class DataSet:
    """Task results as Celery's Redis backend stores them, and the probe's key."""

    keys: int
    # One in so many has a TTL, one in so many is old; 0 is none, 1 is all.
    ttl_every: int = 0
    old_every: int = 0
    small: bool = False

    # Far apart, so that a long run does not make the young ones old.
    YOUNG = timedelta(minutes=10)
    OLD = timedelta(days=8)
    TTL_S = 7 * 86_400

    def results(self):
        """Each result's key, value and number."""
        draw = random.Random(self.keys)
        now = datetime.now(timezone.utc)
        for n in range(self.keys):
            digits = f"{draw.getrandbits(128):032x}"
            task = "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
            age = self.YOUNG * draw.random()
            if self.old_every and n % self.old_every == 0:
                age += self.OLD
            done = (now - age).isoformat()
            if self.small:
                value = f'{{"status": "SUCCESS", "result": null, "date_done": "{done}"}}'
            else:
                value = (
                    f'{{"status": "SUCCESS", "result": {{"rows": {n}, "file": "report-{n}.csv"}}, '
                    f'"traceback": null, "children": [], "date_done": "{done}", '
                    f'"task_id": "{task}"}}'
                )
            yield PREFIX + task, value, n

    def value_bytes(self):
        """How long its values are, about."""
        return len(next(self.results())[1])

    def commands(self):
        """What fills a server with it, as RESP."""
        yield request("SET", PROBE_KEY, "x" * 200)
        for key, value, n in self.results():
            if self.ttl_every and n % self.ttl_every == 0:
                yield request("SET", key, value, "EX", str(self.TTL_S))
            else:
                yield request("SET", key, value)

    def save(self, kind, folder):
        """Fills a server of that kind with it and keeps the RDB file, once."""
        name = f"{self.keys}-{self.ttl_every}-{self.old_every}-{self.small}"
        return saved(kind, folder, name, self.commands())


def saved(kind, folder, name, commands):
    """The RDB file of a server of that kind that these commands have filled, made once."""
    rdb = Path(folder) / f"{kind}-{name}.rdb".replace(" ", "-")
    if not rdb.exists():
        with Server(kind) as server:
            fill(server.port, commands)
            server.control.config_set("rdbcompression", "no")
            # A child, for the server's own SAVE would block the client longer
            # than it waits.
            server.control.bgsave()
            wait_for(
                "saved data set",
                lambda: server.control.info("persistence")["rdb_bgsave_in_progress"] == 0,
                LOAD_DEADLINE_S,
            )
            os.replace(server.dir / "dump.rdb", rdb)
    return rdb


def request(*words):
    parts = [f"*{len(words)}\r\n"]
    parts += [f"${len(word)}\r\n{word}\r\n" for word in words]
    return "".join(parts)


def fill(port, commands, batch=5_000):
    """Sends commands that are each answered by OK, a batch at a time."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as server:
        pending = []

        def flush():
            server.sendall("".join(pending).encode())
            expected = b"+OK\r\n" * len(pending)
            answer = bytearray()
            while len(answer) < len(expected):
                part = server.recv(1 << 16)
                if not part:
                    raise Failure("the server closed the connection while it was filled")
                answer += part
            if answer != expected:
                raise Failure(f"the server answered {bytes(answer[:200])!r} while it was filled")
            pending.clear()

        for command in commands:
            pending.append(command)
            if len(pending) == batch:
                flush()
        if pending:
            flush()


def wait_a_moment():
    """Lets what the last client left behind end."""
    time.sleep(0.2)
