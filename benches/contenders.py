"""What is compared: the ways to do the same work on the same data set.

Each is a function of a `Job` that returns how many keys it changed, deleted or
counted, or None where it does not tell. Whether that many is right is checked by
whoever measures.
"""

import json
import os
import signal
import subprocess
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Callable

from local_redis import ROOT
from reading import as_map, by_name
from servers import PREFIX, DataSet, Server

TOOLS = ROOT / "target/bench"
PATTERN = PREFIX + "*"
PAGE = 1_000
TTL_S = 3_600
MAX_AGE_DAYS = 7


@dataclass
class Job:
    """One run of a contender."""

    server: Server
    cli: str
    deadline_s: float

    def client(self, **options):
        # redis-py gives up sooner by itself.
        return self.server.client(socket_timeout=self.deadline_s, **options)

    def ask(self, *command):
        """The module's reply to a command, a map."""
        return as_map(self.client(decode_responses=True).execute_command(*command))

    def ask_word(self, *command):
        """The reply to a command as it comes."""
        return self.client(decode_responses=True).execute_command(*command)

    def ask_in_transaction(self, *command):
        """The reply to a command that is in a transaction alone."""
        with self.client(decode_responses=True).pipeline(transaction=True) as pipe:
            return pipe.execute_command(*command).execute()[0]

    def shell(self, pipeline):
        """Runs a pipeline of the shell, with `$cli` for the command-line client on
        this server. Nothing of it is left when it does not end."""
        process = subprocess.Popen(
            ["bash", "-o", "pipefail", "-c", pipeline],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env={**os.environ, "cli": f"{self.cli} -p {self.server.port}"},
        )
        try:
            output = process.communicate()[0]
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        if process.returncode != 0:
            raise RuntimeError(f"{pipeline} ended with {process.returncode}: {output[-500:]}")
        return output


@dataclass(frozen=True)
class Contender:
    name: str
    run: Callable
    module: bool = False
    # Too slow for the whole data set: measured on a sample and scaled.
    sampled: bool = False
    # Why it cannot run on a kind of server, or with a command-line client.
    unfit: Callable = lambda kind, cli: None


@dataclass(frozen=True)
class Task:
    """What is to be done."""

    name: str
    title: str
    contenders: tuple
    # The contender of ours that does the same work as the others.
    base: str
    data: Callable
    # How many keys are there and have a TTL at the end, for so many at the start,
    # and how many the contender tells; the probe's key apart.
    after: Callable
    told: Callable
    read_only: bool = False


# --- Giving a TTL ---------------------------------------------------------------


def fixttl(*options):
    return lambda job: job.ask("HYGIENE.FIXTTL", *options)["stamped"]


def pages(client):
    cursor = None
    while cursor != 0:
        cursor, keys = client.scan(cursor or 0, match=PATTERN, count=PAGE)
        if keys:
            yield keys


def redispy_ttl_expire(job):
    client = job.client()
    changed = 0
    for keys in pages(client):
        pipeline = client.pipeline(transaction=False)
        for key in keys:
            pipeline.ttl(key)
        bare = [key for key, ttl in zip(keys, pipeline.execute()) if ttl == -1]
        for key in bare:
            pipeline.expire(key, TTL_S)
        changed += sum(pipeline.execute())
    return changed


def redispy_expire_nx(job):
    client = job.client()
    changed = 0
    for keys in pages(client):
        pipeline = client.pipeline(transaction=False)
        for key in keys:
            pipeline.expire(key, TTL_S, nx=True)
        changed += sum(pipeline.execute())
    return changed


def no_expire_nx(kind, _cli):
    if kind.version < (7,):
        return "EXPIRE NX came with 7.0"
    return None


def script(job, body, once, *args):
    """Runs a Lua body for the keys of each page, in one call or a call a page. The
    body counts in `n`."""
    # Before 7.0 a script that writes behind SCAN must say so.
    effects = "redis.replicate_commands() " if job.server.kind.version < (7,) else ""
    page = f"""
        local page = redis.call('SCAN', cursor, 'MATCH', '{PATTERN}', 'COUNT', {PAGE})
        cursor = page[1]
        local keys = page[2]
        {body}
    """
    if once:
        page = f"repeat {page} until cursor == '0'"
    source = f"{effects} local cursor, n = ARGV[1], 0 {page} return {{cursor, n}}"
    client = job.client()
    portion = client.register_script(source)
    cursor, total = b"0", 0
    while True:
        cursor, n = portion(args=[cursor, *args])
        total += n
        if cursor == b"0":
            return total


LUA_EXPIRE = f"""
    for _, key in ipairs(keys) do
        if redis.call('TTL', key) == -1 then
            redis.call('EXPIRE', key, {TTL_S})
            n = n + 1
        end
    end
"""


def lua_expire(once):
    return lambda job: script(job, LUA_EXPIRE, once)


def cli_pipe_expire(job):
    job.shell(
        f"$cli --scan --pattern '{PATTERN}' | sed 's/.*/EXPIRE & {TTL_S}/' | $cli --pipe >/dev/null"
    )


def cli_xargs_expire(job):
    job.shell(
        f"$cli --scan --pattern '{PATTERN}' | xargs -I'{{}}' $cli expire '{{}}' {TTL_S} >/dev/null"
    )


def fastest_client(job):
    port = job.server.port
    return int(job.shell(f"'{TOOLS / 'fastest_client'}' {port} '{PATTERN}' {TTL_S}"))


GIVE_TTL = Task(
    name="fixttl",
    title="Give a TTL to results without one",
    base="FIXTTL MAXAGE 0",
    data=lambda keys: DataSet(keys),
    after=lambda keys: (keys, keys),
    told=lambda keys: keys,
    contenders=(
        Contender("FIXTTL MAXAGE 0", fixttl("TTL", "1h", "MAXAGE", "0"), module=True),
        Contender("FIXTTL", fixttl(), module=True),
        Contender("redis-py SCAN, TTL, EXPIRE", redispy_ttl_expire),
        Contender("redis-py SCAN, EXPIRE NX", redispy_expire_nx, unfit=no_expire_nx),
        Contender("fastest client", fastest_client, unfit=no_expire_nx),
        Contender("Lua in one go", lua_expire(once=True)),
        Contender("Lua in portions", lua_expire(once=False)),
        Contender("redis-cli --scan, --pipe", cli_pipe_expire),
        Contender("redis-cli --scan, xargs", cli_xargs_expire, sampled=True),
    ),
)


# --- Deleting by date -------------------------------------------------------------


def fixttl_max_age(job):
    return job.ask("HYGIENE.FIXTTL", "MAXAGE", f"{MAX_AGE_DAYS}d")["deleted"]


def redispy_unlink(job):
    client = job.client()
    oldest = datetime.now(timezone.utc) - timedelta(days=MAX_AGE_DAYS)
    deleted = 0
    for keys in pages(client):
        old = [
            key
            for key, value in zip(keys, client.mget(keys))
            if value is not None and datetime.fromisoformat(json.loads(value)["date_done"]) < oldest
        ]
        if old:
            deleted += client.unlink(*old)
    return deleted


# Dates of one zone and form compare as texts.
LUA_UNLINK = """
    for _, key in ipairs(keys) do
        local value = redis.call('GET', key)
        if value and cjson.decode(value)['date_done'] < ARGV[2] then
            n = n + redis.call('UNLINK', key)
        end
    end
"""


def lua_unlink(once):
    def run(job):
        oldest = datetime.now(timezone.utc) - timedelta(days=MAX_AGE_DAYS)
        return script(job, LUA_UNLINK, once, oldest.isoformat())

    return run


DELETE = Task(
    name="delete",
    title="Delete the half of the results that is old, by date_done",
    base=f"FIXTTL MAXAGE {MAX_AGE_DAYS}d",
    # All with a TTL, so that FIXTTL has nothing to do but delete, as the others.
    data=lambda keys: DataSet(keys, ttl_every=1, old_every=2),
    after=lambda keys: (keys // 2, keys // 2),
    told=lambda keys: keys - keys // 2,
    contenders=(
        Contender(f"FIXTTL MAXAGE {MAX_AGE_DAYS}d", fixttl_max_age, module=True),
        Contender("redis-py SCAN, MGET, UNLINK", redispy_unlink),
        Contender("Lua cjson in one go", lua_unlink(once=True)),
        Contender("Lua cjson in portions", lua_unlink(once=False)),
    ),
)


# --- Counting and reporting -------------------------------------------------------


def scan(*options):
    def run(job):
        classes = by_name(job.ask("HYGIENE.SCAN", *options)["classes"], "class")
        return classes["task_result"]["no_ttl"]

    return run


def bare_among(client, keys):
    pipeline = client.pipeline(transaction=False)
    for key in keys:
        pipeline.ttl(key)
    return sum(ttl == -1 for ttl in pipeline.execute())


def redispy_count(job):
    client = job.client()
    return sum(bare_among(client, keys) for keys in pages(client))


def keys_count(job):
    client = job.client()
    keys = client.keys(PATTERN)
    return sum(bare_among(client, keys[at : at + PAGE]) for at in range(0, len(keys), PAGE))


LUA_COUNT = """
    for _, key in ipairs(keys) do
        if redis.call('TTL', key) == -1 then n = n + 1 end
    end
"""


def lua_count(once):
    return lambda job: script(job, LUA_COUNT, once)


def cli_report(option):
    def run(job):
        job.shell(f"$cli {option} >/dev/null")

    return run


def without_option(option):
    def unfit(_kind, cli):
        usage = subprocess.run([cli, "--help"], capture_output=True, text=True, timeout=10)
        if option in usage.stdout + usage.stderr:
            return None
        version = subprocess.run([cli, "--version"], capture_output=True, text=True, timeout=10)
        return f"{version.stdout.strip()} has no {option}"

    return unfit


COUNT = Task(
    name="scan",
    title="Count the results without TTL, and report on the keyspace",
    base="HYGIENE.SCAN MEMORY OFF",
    data=lambda keys: DataSet(keys, ttl_every=2),
    after=lambda keys: (keys, keys - keys // 2),
    told=lambda keys: keys // 2,
    read_only=True,
    contenders=(
        Contender("HYGIENE.SCAN MEMORY OFF", scan("MEMORY", "OFF"), module=True),
        Contender("HYGIENE.SCAN", scan(), module=True),
        Contender("KEYS, redis-py TTL", keys_count),
        Contender("redis-py SCAN, TTL", redispy_count),
        Contender("Lua in one go", lua_count(once=True)),
        Contender("Lua in portions", lua_count(once=False)),
        Contender("redis-cli --bigkeys", cli_report("--bigkeys")),
        Contender("redis-cli --memkeys", cli_report("--memkeys")),
        Contender(
            "redis-cli --keystats", cli_report("--keystats"), unfit=without_option("--keystats")
        ),
    ),
)

TASKS = (GIVE_TTL, DELETE, COUNT)


def build_tools():
    """Compiles what is written in Rust: the probe, the fastest client, the baseline."""
    TOOLS.mkdir(parents=True, exist_ok=True)
    for name, kind in (("probe", "bin"), ("fastest_client", "bin"), ("baseline", "cdylib")):
        source, binary = Path(__file__).with_name(f"{name}.rs"), TOOLS / name
        if not binary.exists() or binary.stat().st_mtime < source.stat().st_mtime:
            command = ["rustc", "--edition", "2024", "--crate-type", kind, "-C", "opt-level=3"]
            subprocess.run([*command, "-o", binary, source], check=True, timeout=120)
