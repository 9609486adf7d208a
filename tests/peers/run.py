#!/usr/bin/env python3
"""Runs other projects' tests on a stock server and on one with the module loaded.

Both sides run in one go, with the same server program, each suite on servers of its
own; the module has its default settings, so enforcement is on. Prints a table, a row
a suite. Equal means: the same tests ran, and the same failed. Tests that do not are
run again on both sides, up to REPEATS times: what then fails on one side alone is a
difference, what fails now and then is named as that. A suite that cannot run here
is named with the reason.

The table also counts the keys that the module gave a TTL: Celery sets its own unless
result_expires is 0, so that is what its tests run with here.

Exits non-zero when there is a difference, or, without --or-none, when nothing ran.

Usage: tests/peers/run.py [--server NAME] [--only WHAT] [--together] [--or-none] [SUITE ...]
(default: all but tcl-fast, which is a part of tcl)
"""

import argparse
import concurrent.futures
import dataclasses
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
MODULE = ROOT / os.environ.get("MODULE", "target/release/libredis_hygiene.so")
SERVERS = pathlib.Path(os.environ.get("HYGIENE_SERVERS_DIR", ROOT / "target/servers"))
KEPT = ROOT / "target/peers"
REPEATS = 3
# A server that has not come up by then never will.
START_S = 20
# Redis's tests take a port for each server from a range; the sides never share one.
TCL_PORTS = {"stock": 24100, "module": 27100}
TCL_PORT_COUNT = 2900

# Those whose source is a package, and its name in sources.list.
TCL_RELEASES = {"Redis 7.0": "redis-7.0", "Redis 8.0": "redis-8.0", "Valkey 8.1": "valkey-8.1"}
# The machine's own; what an older one cannot read fails on both sides.
TCL_TOOLS = ("cli", "benchmark", "check-aof", "check-rdb")

# About a minute, and near what the module does: keys and their expiry, scans,
# notifications, rights, settings, transactions, scripts, replicas, files.
TCL_FAST = """unit/info unit/info-command unit/expire unit/scan unit/keyspace unit/dump unit/multi
unit/introspection unit/introspection-2 unit/acl unit/acl-v2 unit/pause unit/lazyfree unit/functions
unit/scripting unit/tracking unit/pubsub unit/latency-monitor unit/shutdown integration/aof
integration/aof-multi-part integration/rdb integration/replication-2 integration/replication-3
integration/block-repl integration/failover integration/logging integration/dismiss-mem""".split()


# Redis 7.0's: they look for their own module at the head of MODULE LIST, which has no
# order, or for none at the end. Those of 8.0 do not.
ALONE = {
    "unit/moduleapi/infra: modules config rewrite",
    "unit/moduleapi/moduleconfigs: Config get commands work",
    "unit/moduleapi/moduleconfigs: test loadex functionality",
    "unit/moduleapi/moduleconfigs: test config rewrite with dynamic load",
    "unit/moduleapi/moduleconfigs: test 1.module load 2.config rewrite 3.module unload 4.config rewrite works",
}


@dataclasses.dataclass
class Result:
    """What a suite said on one side."""

    passed: set = dataclasses.field(default_factory=set)
    skipped: set = dataclasses.field(default_factory=set)
    # Each with what to run to see it again.
    failed: dict = dataclasses.field(default_factory=dict)
    # Names of those that failed as they would stand among the others.
    met: set = dataclasses.field(default_factory=set)
    # How many passed: Redis has tests that share a name.
    ok: int = 0
    seconds: float = 0
    # Keys the module gave a TTL; None where it was not asked.
    stamped: int | None = None

    def ran(self):
        return self.passed | self.skipped | self.met | self.failed.keys()


class CannotRun(Exception):
    """The reason why a suite is left out."""


# What runs now, suites and servers, each the head of a group.
RUNNING = set()


def kill(process):
    """Ends it with its group: servers and workers of a suite outlive it otherwise."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def interrupted(number, _frame):
    """Nothing outlives an interrupted run."""
    for process in RUNNING:
        kill(process)
    os._exit(128 + number)


# --- servers -----------------------------------------------------------------


class Program:
    """A server program."""

    def __init__(self, name):
        if name == "path":
            found = shutil.which("redis-server")
        else:
            files = [SERVERS / name / "bin" / file for file in ("redis-server", "valkey-server")]
            found = next((str(file) for file in files if file.is_file()), None)
        if found is None:
            sys.exit(f"peers: no server {name} here; make servers says why")
        self.path = found
        said = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout.split()
        self.version = said[2].removeprefix("v=")
        self.label = f"{said[0]} {self.version}"
        self.release = self.label.rpartition(".")[0]


class Server:
    """A running server, stock or with the module and its default settings."""

    def __init__(self, program, side, settings=()):
        self.side, self.folder = side, tempfile.TemporaryDirectory(prefix="hygiene-peers-")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        command = [program.path, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--databases", "32"]
        command += ["--dir", self.folder.name, "--daemonize", "no"]
        if not program.version.startswith("6."):
            command += ["--enable-debug-command", "yes"]
        if side == "module":
            command += ["--loadmodule", str(MODULE), *settings]
        self.log = pathlib.Path(self.folder.name) / "server.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        RUNNING.add(self.process)
        until = time.monotonic() + START_S
        while self.ask("PING") != "+PONG":
            if self.process.poll() is not None or time.monotonic() > until:
                kill(self.process)
                sys.exit(f"peers: the server did not start:\n{self.log.read_text(errors='replace')}")
            time.sleep(0.05)

    def ask(self, command):
        """The first bytes of an inline command's answer, or None."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=START_S) as link:
                link.sendall(command.encode() + b"\r\n")
                return link.recv(1 << 16).decode(errors="replace").strip()
        except OSError:
            return None

    def counted(self, field):
        """A counter of the module; None on a stock server."""
        found = re.search(rf"^hygiene_{field}:(\d+)", self.ask("INFO hygiene") or "", re.M)
        return int(found[1]) if found else None

    def stop(self):
        """Ends it; what was wrong with it, or None."""
        wrong = "the module met a fault of its own" if self.counted("faults_total") else None
        if (ended := self.process.poll()) is not None:
            wrong = f"the server ended before its time ({ended})"
        self.process.terminate()
        try:
            self.process.wait(START_S)
        except subprocess.TimeoutExpired:
            kill(self.process)
            self.process.wait()
            wrong = "the server does not end"
        RUNNING.discard(self.process)
        tail = self.log.read_text(errors="replace")[-2000:]
        self.folder.cleanup()
        return wrong and f"{wrong}\n{tail}"


# --- suites ------------------------------------------------------------------


def unpacked(name, folder):
    """The source of that name, unpacked there."""
    found = list((KEPT / name).glob("*.tar.*"))
    if not found:
        raise CannotRun("its source was not fetched; tests/peers/fetch.sh says why")
    subprocess.run(["tar", "--extract", "--file", found[0], "--directory", folder], check=True)
    return next(path for path in pathlib.Path(folder).iterdir() if path.is_dir())


def run(command, cwd, log, deadline_s, **env):
    """Runs a command; how it ended."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, cwd=cwd, env=os.environ | env, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
        RUNNING.add(process)
        try:
            return process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            return f"no end within {deadline_s} s"
        finally:
            kill(process)
            RUNNING.discard(process)
            process.wait()


@dataclasses.dataclass
class Pytest:
    """A suite of pytest's."""

    source: str
    files: list
    options: list = dataclasses.field(default_factory=list)
    # With {port} in place of the server's.
    env: dict = dataclasses.field(default_factory=dict)
    # Arguments of the module.
    settings: list = dataclasses.field(default_factory=list)
    # Laid into the unpacked source: name and text.
    lays: tuple | None = None
    deadline_s: int = 2400
    # False: what differs is told and not judged.
    judged: bool = True

    def run(self, program, side, log, only=None, again=None):
        result, begin = Result(), time.monotonic()
        with tempfile.TemporaryDirectory(prefix="hygiene-peers-") as folder:
            source = unpacked(self.source, folder)
            if self.lays:
                (source / self.lays[0]).write_text(self.lays[1])
            record = pathlib.Path(folder) / "record"
            record.touch()
            server = Server(program, side, self.settings)
            env = {name: value.format(port=server.port) for name, value in self.env.items()}
            env |= {"PYTHONPATH": str(HERE), "HYGIENE_PEERS_RECORD": str(record)}
            tests = sorted(again) if again else [*self.files, *(["-k", only] if only else [])]
            options = [option.format(port=server.port) for option in self.options]
            command = [sys.executable, "-m", "pytest", "-q", "-p", "record", "-p", "no:cacheprovider", *options, *tests]
            ended = run(command, source, log, self.deadline_s, **env)
            result.stamped = server.counted("stamped_by_hook_total")
            wrong = server.stop()
            for line in record.read_text().splitlines():
                outcome, name = line.split("\t", 1)
                if outcome == "failed":
                    result.failed[name] = name
                else:
                    (result.skipped if outcome == "skipped" else result.passed).add(name)
        result.passed -= result.failed.keys() | result.skipped
        result.skipped -= result.failed.keys()
        result.ok = len(result.passed)
        if wrong:
            result.failed[wrong.splitlines()[0]] = self.files[0]
            with log.open("a") as text:
                text.write(wrong)
        # 0: all passed, 1: some failed, 5: -k chose none.
        if ended not in (0, 1, 5):
            result.failed[f"the run itself ({ended})"] = self.files[0]
        result.seconds = time.monotonic() - begin
        return result


@dataclasses.dataclass
class Tcl:
    """A suite of the server's own, of its own release."""

    # Empty: all but those of the module API. A release has most of them.
    units: list = dataclasses.field(default_factory=list)
    modules: bool = False
    deadline_s: int = 3000
    judged: bool = True

    def run(self, program, side, log, only=None, again=None):
        if program.release not in TCL_RELEASES:
            raise CannotRun(f"the tests of {program.label} are not to be had, only those of {', '.join(TCL_RELEASES)}")
        if missing := [tool for tool in ("tclsh", *(f"redis-{tool}" for tool in TCL_TOOLS)) if not shutil.which(tool)]:
            raise CannotRun(f"not installed: {', '.join(missing)}")
        begin = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="hygiene-peers-") as folder:
            source = unpacked(TCL_RELEASES[program.release], folder)
            kind = program.label.split()[0].lower()
            # What a fetched server starts with looks for its libraries beside itself.
            starter = source / "src" / f"{kind}-server"
            starter.write_text(f'#!/bin/sh\nexec "{program.path}" "$@"\n')
            starter.chmod(0o755)
            for tool in TCL_TOOLS:
                (source / "src" / f"{kind}-{tool}").symlink_to(shutil.which(f"redis-{tool}"))
            units = list(again or (unit for unit in self.units if (source / "tests" / f"{unit}.tcl").is_file()))
            if self.modules:
                if run(["make", "-j2", "-C", "tests/modules"], source, log, self.deadline_s):
                    raise CannotRun(f"Redis's test modules do not build here; see {log}")
                units = units or [f"unit/moduleapi/{file.stem}" for file in sorted((source / "tests/unit/moduleapi").glob("*.tcl"))]
            if only:
                units = [unit for unit in only.split() if not units or unit in units]
            helper = ["tclsh", "tests/test_helper.tcl"]
            if not units:
                listed = subprocess.run([*helper, "--list-tests"], cwd=source, capture_output=True, text=True, check=True)
                units = listed.stdout.split()
            result, todo = Result(), units
            # A unit that meets what it does not expect, such as a busy machine, ends
            # the whole run: the others, which have not failed, get another.
            for _ in range(REPEATS + 1):
                command = [*helper, "--clients", "4", "--baseport", str(TCL_PORTS[side]), "--portcount", str(TCL_PORT_COUNT)]
                for unit in todo:
                    command += ["--single", unit]
                if side == "module":
                    command += ["--config", "loadmodule", str(MODULE)]
                start = log.stat().st_size if log.exists() else 0
                ended = run(command, source, log, self.deadline_s)
                with log.open("rb") as said:
                    said.seek(start)
                    text = re.sub(r"\x1b\[[0-9;]*m", "", said.read().decode(errors="replace"))
                todo = self.read(text, todo, result)
                if ended not in (0, 1):
                    result.failed[f"the run itself ({ended})"] = ""
                if not todo or ended not in (0, 1):
                    break
        result.seconds = time.monotonic() - begin
        return result

    @staticmethod
    def read(text, units, result):
        """Adds what the runner's output tells; the units it did not come to the end of."""
        for name in re.findall(r"^\[ok\]: (.*) \(\d+ ms\)$", text, re.M):
            result.ok += 1
            # Steps that a test draws at random are in its name.
            result.passed.add(re.sub(r"\d+", "N", name))
        result.skipped |= set(re.findall(r"^\[(?:ignore|skip)\]: (.*)$", text, re.M))
        for name, unit in re.findall(r"^\[err\]: (.*) in tests/(\S+)\.tcl", text, re.M):
            result.failed[f"{unit}: {name}"] = unit
            result.met.add(re.sub(r"\d+", "N", name))
        done = set(re.findall(r"^\[\d+/\d+ done\]: (\S+)", text, re.M))
        begun = [unit for unit in re.findall(r"^Testing (\S+)$", text, re.M) if unit not in done]
        cut = re.findall(r"^\[(exception|TIMEOUT)\]: (.*)$", text, re.M)
        for kind, told in cut:
            # The sides have ports of their own.
            said = re.sub(r"\d+", "N", told)
            for unit in begun or units:
                result.failed[f"{unit}: cut short by {kind} {said}"] = unit
        # The end says how many failed; without it the run was cut short.
        if "All tests passed without errors" not in text and not result.failed:
            result.failed["the run itself (it came to no end)"] = (units or [""])[0]
        return [unit for unit in units if unit not in done] if cut else []


PREFIXED = {"TEST_BROKER": "redis://127.0.0.1:{port}/0", "TEST_BACKEND": "redis://127.0.0.1:{port}/0",
            "REDIS_HOST": "127.0.0.1", "REDIS_PORT": "{port}"}  # fmt: skip
# Celery gives its results a TTL unless it is told not to, and a client's own TTL
# wins: only so has the module something to do.
NO_EXPIRY = ("integration-tests-config.json", json.dumps({"result_expires": 0}))
CANVAS = Pytest("celery", ["t/integration/test_canvas.py"], ["-W", "ignore"], PREFIXED, lays=NO_EXPIRY)
REDIS_PY = ["--redis-url", "redis://127.0.0.1:{port}/9", "-m", "not onlycluster and not redismod and not ssl and not replica"]

SUITES = {
    "tcl-fast": Tcl(TCL_FAST),
    "tcl": Tcl(),
    "moduleapi": Tcl(modules=True),
    "kombu": Pytest("kombu", ["t/integration/test_redis.py"], env={"REDIS_HOST": "127.0.0.1", "REDIS_6379_TCP": "{port}"}),
    "celery": Pytest(
        "celery", [f"t/integration/test_{part}.py" for part in ("tasks", "backend", "inspect")], ["-W", "ignore"], PREFIXED, lays=NO_EXPIRY
    ),
    "canvas": CANVAS,
    # What fails here waits a minute for a result that is gone: once is enough.
    "canvas-1s": dataclasses.replace(
        CANVAS, options=[*CANVAS.options, "-p", "no:rerunfailures"], settings=["default-ttl", "1s"], judged=False, deadline_s=5400
    ),
    "redis-py": Pytest(
        "redis-py", [f"tests/test_{part}.py" for part in ("commands", "pipeline", "pubsub", "scripting", "lock", "encoding", "connection_pool")], REDIS_PY
    ),
    "redis-py-asyncio": Pytest(
        "redis-py", [f"tests/test_asyncio/test_{part}.py" for part in ("commands", "pipeline", "pubsub", "lock", "scripting")], REDIS_PY
    ),
    "redbeat": Pytest("redbeat", ["tests"], env={"HYGIENE_PEERS_URL": "redis://127.0.0.1:{port}/0"}),
}  # fmt: skip


# --- judging -----------------------------------------------------------------


def differing(stock, module):
    """Tests whose fate differs, each with what to run to see them again."""
    names = stock.failed.keys() ^ module.failed.keys()
    both = stock.failed | module.failed
    found = {name: both[name] for name in names}
    # A test that is not there on one side, unless its failure was just named.
    return found, (stock.ran() ^ module.ran()) - both.keys(), stock.skipped ^ module.skipped


class Row:
    """One suite on both sides."""

    def __init__(self, name, program, only, together):
        self.name, self.suite, self.program, self.only = name, SUITES[name], program, only
        self.differences, self.notes, self.why = [], [], None
        for side in TCL_PORTS:
            self.log(side).unlink(missing_ok=True)
        try:
            self.stock, self.module = self.both(together)
        except CannotRun as why:
            self.why = str(why)
            return
        self.judge(together)

    def log(self, side):
        return KEPT / f"{self.name}.{side}.log"

    def both(self, together, **what):
        """The results of both sides, one after the other or side by side."""
        with concurrent.futures.ThreadPoolExecutor(2 if together else 1) as pool:
            runs = [pool.submit(self.suite.run, self.program, side, self.log(side), **({"only": self.only} | what)) for side in TCL_PORTS]
            return [each.result() for each in runs]

    def judge(self, together):
        if not self.stock.ok and not self.only:
            self.differences = ["nothing passed on stock: that compares nothing"]
            return
        names, absent, skipped = differing(self.stock, self.module)
        self.differences = [f"{name}: ran on one side alone" for name in sorted(absent)]
        self.differences += [f"{name}: skipped on one side alone" for name in sorted(skipped - absent)]
        if not self.suite.judged:
            self.notes = [f"{name}: fails {'with the module' if name in self.module.failed else 'on stock'} alone" for name in sorted(names)]
            return
        for name in sorted(names.keys() & ALONE):
            del names[name]
            self.notes.append(f"{name}: wants no other module beside its own, whichever that is")
        fails = {name: [int(name in side.failed) for side in (self.stock, self.module)] for name in names}
        runs = 1
        while names and runs <= REPEATS:
            repeat = self.both(together, again=sorted({what for what in names.values() if what}))
            runs += 1
            for name, count in fails.items():
                for side, result in enumerate(repeat):
                    count[side] += name in result.failed
        for name, (stock, module) in sorted(fails.items()):
            said = f"{name}: failed {stock} of {runs} times on stock, {module} of {runs} with the module"
            # Once is chance, and told; again, and never on the other side, is not.
            (self.differences if max(stock, module) > 1 and not min(stock, module) else self.notes).append(said)

    def cells(self):
        if self.why:
            return [self.name, "-", "-", "left out"]
        sides = [f"{side.ok} ok, {len(side.failed)} failed" for side in (self.stock, self.module)]
        equal = "NO" if self.differences else "yes" if self.suite.judged else "not judged"
        return [self.name, *sides, equal]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", default="path", help="one of tests/servers.list; default: redis-server on PATH")
    parser.add_argument("--only", help="a part: pytest's -k, or units of Redis's tests such as 'unit/expire unit/scan'")
    parser.add_argument("--together", action="store_true", help="both sides at once: sooner, and more fails by chance")
    parser.add_argument("--or-none", action="store_true", help="that nothing can run here is no failure")
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=", ".join(SUITES))
    options = parser.parse_args()
    if unknown := set(options.suites) - SUITES.keys():
        parser.error(f"no such suite: {', '.join(sorted(unknown))}")
    if not MODULE.is_file():
        parser.error(f"{MODULE} is not there; make build")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupted)
    program = Program(options.server)
    print(f"peers: on {program.label}", flush=True)
    rows = []
    for name in options.suites or [name for name in SUITES if name != "tcl-fast"]:
        rows.append(row := Row(name, program, options.only, options.together))
        took = "" if row.why else f", {row.stock.seconds:.0f} s and {row.module.seconds:.0f} s"
        print(f"peers: {': '.join(row.cells()[::3])}{took}", flush=True)
    head = ["suite", f"{program.label} stock", "with the module", "equal"]
    cells = [row.cells() for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    print()
    for line in (head, ["-" * width for width in widths], *cells):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |")
    print()
    for row in rows:
        if row.why:
            print(f"{row.name}: left out: {row.why}")
            continue
        for name in sorted(row.stock.failed.keys() & row.module.failed.keys()):
            print(f"{row.name}: fails on both: {name}")
        for note in row.notes:
            print(f"{row.name}: {note}")
        if row.module.stamped is not None:
            print(f"{row.name}: the module gave {row.module.stamped} keys a TTL")
    for row in rows:
        for difference in row.differences:
            print(f"DIFFERS: {row.name}: {difference}")
    ran = [row for row in rows if not row.why]
    different = [row for row in ran if row.differences]
    print(f"{len(ran) - len(different)} passed, {len(different)} failed, {len(rows) - len(ran)} skipped")
    sys.exit(bool(different or not (ran or options.or_none)))


if __name__ == "__main__":
    main()
