"""A throw-away Redis server with the module, for the demo and the tests.

The server owns its port and its folder and is gone at the end, whatever
happens. It reads the project's own `redis.conf`: only the module's path and
what the caller asks for differ from what an operator installs.
"""

import os
import re
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import redis
from processes import Failure, end, spawn, wait_for

ROOT = Path(__file__).resolve().parent.parent
MODULE = Path(os.environ.get("MODULE", ROOT / "target/release/libredis_hygiene.so")).resolve()
SERVER = os.environ.get("REDIS_SERVER", "redis-server")


def server_version():
    text = subprocess.run([SERVER, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"v=(\d+)\.(\d+)\.(\d+)", text)
    if not found:
        raise Failure(f"cannot tell the version of {SERVER} from {text!r}")
    return tuple(int(part) for part in found.groups())


def configuration(settings, module=True):
    """`redis.conf` with the module that was built and other settings.

    Redis 6.2 knows no module settings in the file: there they follow the
    module's path, as the file itself tells the operator.
    """
    lines = []
    ours = {}
    for line in (ROOT / "redis.conf").read_text().splitlines():
        words = line.split(None, 1)
        if words and words[0].startswith("hygiene."):
            ours[words[0].removeprefix("hygiene.")] = words[1]
        elif not (words and words[0] == "loadmodule"):
            lines.append(line)
    unknown = set(settings) - set(ours)
    if unknown:
        raise Failure(f"redis.conf has no setting {', '.join(sorted(unknown))}")
    ours.update(settings)
    if not module:
        return "\n".join(lines) + "\n"
    if server_version() < (7, 0, 0):
        # Only what differs from the defaults, which the file repeats.
        pairs = " ".join(f"{name} {quoted(value)}" for name, value in settings.items())
        lines.append(f"loadmodule {MODULE} {pairs}".rstrip())
    else:
        lines.append(f"loadmodule {MODULE}")
        lines += [f"hygiene.{name} {quoted(value)}" for name, value in ours.items()]
    return "\n".join(lines) + "\n"


def quoted(value):
    value = str(value)
    return f'"{value}"' if " " in value else value


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class LocalRedis:
    """A running server. Use it as a context manager."""

    def __init__(self, name, settings=None, replica_of=None, seed_dir=None, module=True):
        self.name = name
        self.port = free_port()
        self.dir = Path(tempfile.mkdtemp(prefix=f"hygiene-{name}-"))
        self.process = None
        self.options = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.dir)]
        self.options += ["--logfile", str(self.log_file), "--daemonize", "no"]
        if replica_of is not None:
            self.options += ["--replicaof", f"127.0.0.1 {replica_of.port}"]
        (self.dir / "redis.conf").write_text(configuration(settings or {}, module))
        if seed_dir is not None:
            self._take_persistence_from(seed_dir)

    @property
    def log_file(self):
        return self.dir / "redis.log"

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}/0"

    def _take_persistence_from(self, folder):
        """Copies another server's AOF, wherever its version keeps it."""
        for name in ("appendonlydir", "appendonly.aof"):
            source = Path(folder) / name
            if source.is_dir():
                shutil.copytree(source, self.dir / name)
            elif source.exists():
                shutil.copy(source, self.dir / name)

    def start(self):
        command = [SERVER, str(self.dir / "redis.conf"), *self.options]
        self.process = spawn(command, self.dir / "stderr")
        try:
            wait_for(f"answer from the {self.name} server", self._answers)
        except Failure as failure:
            self.stop(keep=True)
            raise Failure(f"{failure}\n{self.log_tail()}") from None
        return self

    def _answers(self):
        if self.process.poll() is not None:
            raise Failure(f"the {self.name} server ended with status {self.process.returncode}")
        try:
            return self.client().ping()
        except (redis.ConnectionError, redis.BusyLoadingError, redis.TimeoutError):
            return False

    def client(self, db=0):
        # RESP3, so that the module's maps arrive as dicts. Keys may hold any
        # bytes; a person reads them here.
        return redis.Redis(
            port=self.port,
            db=db,
            protocol=3,
            socket_timeout=60,
            decode_responses=True,
            encoding_errors="backslashreplace",
        )

    def log_tail(self, lines=30):
        text = ""
        for file in (self.dir / "stderr", self.log_file):
            if file.exists():
                text += file.read_text(errors="replace")
        tail = "\n".join(text.splitlines()[-lines:])
        return f"--- last lines of the {self.name} server's log ---\n{tail}"

    def all_logs(self, lines=15):
        """The server's log and those of the processes that log beside it."""
        tails = [self.log_tail()]
        for log in sorted(self.dir.glob("*.log")):
            if log != self.log_file:
                tail = log.read_text(errors="replace").splitlines()[-lines:]
                tails.append("\n".join([f"--- last lines of {log.name} ---", *tail]))
        return "\n".join(tails)

    def stop(self, keep=False):
        if self.process is not None and self.process.poll() is None:
            end(self.process)
        self.process = None
        if not keep:
            shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()
