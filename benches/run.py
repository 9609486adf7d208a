"""Compares the module with other ways to do its work, and writes a report.

    make bench                       everything, as in benches/report.md
    make bench BENCH='--quick'       the same on little data, in a few minutes

All of it takes hours. It can be run in pieces, since figures are compared within
a server and a part only: --server and --only name a piece, --add keeps the others.
The report names the commit of each piece.

It starts its own servers on free ports and ends them; nothing here passes or
fails by its speed.
"""

import argparse
import datetime
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))

import contenders  # noqa: E402
import hook  # noqa: E402
import limits  # noqa: E402
import measure  # noqa: E402
import observe  # noqa: E402
import redis  # noqa: E402
import report  # noqa: E402
from contenders import COUNT, TASKS, fixttl, scan  # noqa: E402
from local_redis import MODULE, ROOT  # noqa: E402
from processes import Failure, exit_on_sigterm  # noqa: E402
from servers import MODULE_SETTINGS, SETTINGS, SLOW_US, DataSet, Kind, Server  # noqa: E402

PARTS = [task.name for task in TASKS] + ["growth", "hook", "observe", "limits"]
MEASUREMENTS = "measurements.json"
FULL = {"keys": 1_000_000, "rounds": 5, "requests": 200_000, "value_mb": 512}
QUICK = {"keys": 20_000, "rounds": 2, "requests": 20_000, "value_mb": 16}
SERVERS = ("redis-8.2/bin/redis-server", "valkey-9.1/bin/valkey-server")
# What the growth is shown for. The memory is that of what only reads: TTLs take
# memory of the server's own.
READING = {
    "HYGIENE.SCAN": scan(),
    "HYGIENE.SCAN MEMORY OFF": scan("MEMORY", "OFF"),
    "FIXTTL DRYRUN": fixttl("DRYRUN"),
}
WRITING = {
    "FIXTTL MAXAGE 0": fixttl("TTL", "1h", "MAXAGE", "0"),
    "FIXTTL": fixttl(),
}
# What may happen to one run without being the end of all.
FAULTS = (
    measure.OutOfTime,
    Failure,
    RuntimeError,
    redis.RedisError,
    subprocess.SubprocessError,
)
# Only measurements that agree in these make one report.
SAME = ("cpu", "cores", "kernel", "quick")
# Ratios are taken within a part, so that parts may differ in these.
AMOUNT = ("keys", "rounds", "sample", "requests", "idle_s", "value_mb")


def options():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keys", type=int, help="results in a data set (1000000)")
    parser.add_argument("--rounds", type=int, help="measurements of each figure (5)")
    parser.add_argument("--server", nargs="+", metavar="PATH", help="server programs")
    parser.add_argument("--only", default=",".join(PARTS), help=f"some of {','.join(PARTS)}")
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"{QUICK['keys']} keys, {QUICK['rounds']} rounds, into target/bench, if not said else",
    )
    parser.add_argument(
        "--big",
        type=int,
        nargs="?",
        const=1,
        default=0,
        metavar="ROUNDS",
        help="growth up to ten times the keys, too, in so many rounds (1)",
    )
    parser.add_argument(
        "--add", action="store_true", help="keep what the last run measured elsewhere"
    )
    parser.add_argument("--out", type=Path, help="folder for the report and its plots")
    parser.add_argument("--cli", default="redis-cli", help="the command-line client")
    parser.add_argument("--sample", type=int, help="keys for what starts a process per key")
    parser.add_argument("--idle", type=float, default=5, help="most seconds of an idle probe")
    parser.add_argument("--deadline", type=float, default=600, help="seconds for one run")
    parser.add_argument("--requests", type=int, help="of a redis-benchmark run (200000)")
    parser.add_argument("--value-mb", type=int, help="MiB of a big value in `limits` (512)")
    parser.add_argument("--render", type=Path, help="write the report of this file of measurements")
    given = parser.parse_args()
    for name, value in (QUICK if given.quick else FULL).items():
        if getattr(given, name) is None:
            setattr(given, name, value)
    given.out = given.out or ROOT / ("target/bench" if given.quick else "benches")
    given.sample = given.sample or max(given.keys // 1_000, 100)
    given.only = given.only.split(",")
    unknown = set(given.only) - set(PARTS)
    if unknown:
        parser.error(f"--only {','.join(sorted(unknown))}: it is some of {','.join(PARTS)}")
    return given


def kinds(given):
    """The servers named, or that of the system and those fetched for the tests."""
    found = given.server
    if not found:
        found = [shutil.which(os.environ.get("REDIS_SERVER", "redis-server"))]
        found += [ROOT / "target/servers" / path for path in SERVERS]
        found = [path for path in found if path and Path(path).exists()]
    if not found:
        raise Failure("no redis-server: name one with --server")
    return [Kind.of(path) for path in found]


def say(text):
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


# --- What is run --------------------------------------------------------------------


def attempt(what, run, *arguments):
    """A contender that fails or is not done in time is noted, and the rest goes on."""
    try:
        return run(*arguments)
    except FAULTS as why:
        say(f"{what}: {why}")
        return {"failed": str(why)}


def compare(task, kind, given, folder):
    """Every contender once a round, from the same data set, in an order that turns."""
    left_out, taking_part = {}, []
    for contender in task.contenders:
        why = contender.unfit(kind, given.cli)
        if why:
            left_out[contender.name] = why
        else:
            taking_part.append(contender)
    say(f"{kind}: {task.name}, data set")
    data = {False: task.data(given.keys).save(kind, folder)}
    if any(contender.sampled for contender in taking_part):
        data[True] = task.data(given.sample).save(kind, folder)

    rounds = {contender.name: [] for contender in taking_part}
    for turn in range(given.rounds):
        first = turn % len(taking_part)
        for contender in taking_part[first:] + taking_part[:first]:
            say(f"{kind}: {task.name}, round {turn + 1} of {given.rounds}, {contender.name}")
            rdb = data[contender.sampled]
            seen = attempt(contender.name, one_round, task, contender, kind, given, rdb)
            rounds[contender.name].append(seen)
    for rdb in data.values():
        rdb.unlink(missing_ok=True)

    result = {"left_out": left_out, "contenders": []}
    for contender in taking_part:
        keys = given.sample if contender.sampled else given.keys
        result["contenders"].append(
            {
                "name": contender.name,
                "module": contender.module,
                "keys": keys,
                "expected": {
                    "told": task.told(keys),
                    "keys_after": task.after(keys)[0],
                    "with_ttl_after": task.after(keys)[1],
                },
                "rounds": rounds[contender.name],
            }
        )
    return result


def one_round(task, contender, kind, given, rdb):
    """Alone, and then beside the probe: its requests would count as the server's
    work for the contender. What changes the data set gets a new server each."""
    limits = given.cli, given.deadline
    with Server(kind, contender.module, rdb) as server:
        seen = {"alone": measure.alone(server, contender.run, *limits)}
        if task.read_only:
            seen |= with_probe(server, contender, seen["alone"]["wall_s"], given)
    if not task.read_only:
        with Server(kind, contender.module, rdb) as server:
            seen |= with_probe(server, contender, seen["alone"]["wall_s"], given)
    return seen


def with_probe(server, contender, wall_s, given):
    seconds = max(min(wall_s, given.idle), 0.2)
    return {
        "idle": measure.idle(server, seconds),
        "beside": measure.beside(server, contender.run, given.cli, given.deadline),
    }


def growth(kind, given, folder):
    """The module's own work on ever more keys, and its memory. Small values, for
    they must fit in memory; the same ones at every size, to compare them."""
    sizes = [given.keys // 10, given.keys] + ([given.keys * 10] if given.big else [])
    sets = {size: replace(COUNT.data(size), small=True, ttl_every=0) for size in sizes}
    say(f"{kind}: growth, data sets")
    files = {size: data.save(kind, folder) for size, data in sets.items()}
    rows = []
    for turn in range(given.rounds):
        for size in sizes:
            if size > given.keys and turn >= given.big:
                continue
            say(f"{kind}: growth, round {turn + 1} of {given.rounds}, {size} keys")
            row = attempt(f"{size} keys", grown, kind, given, files[size])
            rows.append({"keys": size} | row)
    for file in files.values():
        file.unlink()
    return rows


def grown(kind, given, rdb):
    row = {"runs": {}}
    with Server(kind, rdb=rdb) as server:
        without, without_rss = server.memory()
    with Server(kind, module=True, rdb=rdb) as server:
        idle, idle_rss = server.memory()
        row["memory"] = {"idle": idle - without, "idle_rss": idle_rss - without_rss}
        for name, run in READING.items():
            with measure.watched_memory(server) as seen:
                row["runs"][name] = measure.alone(server, run, given.cli, given.deadline)
            row["memory"][name] = max(seen, default=idle) - without
    for name, run in WRITING.items():
        with Server(kind, module=True, rdb=rdb) as server:
            row["runs"][name] = measure.alone(server, run, given.cli, given.deadline)
    return row


# --- Where and with what --------------------------------------------------------------


def output_of(*command):
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=30)
    return done.stdout.strip()


def shown(path):
    """A path as a reader of the repository would name it."""
    path = Path(path)
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def field(file, name):
    for line in Path(file).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return "unknown"


def stolen_share(since=(0, 0)):
    """The time another machine on the same host had, as the kernel saw it."""
    ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    return ticks[7] - since[0], sum(ticks[:8]) - since[1]


def about_this_run():
    arguments = [shown(word) if os.path.isabs(word) else word for word in sys.argv[1:]]
    options = f" BENCH={shlex.quote(shlex.join(arguments))}" if arguments else ""
    changed = output_of("git", "status", "--porcelain", "--untracked-files=no", "src", "Cargo.lock")
    return {
        "command": f"make bench{options}",
        "commit": output_of("git", "rev-parse", "--short", "HEAD") + (" with changes" if changed else ""),
        "module_sha256": output_of("sha256sum", str(MODULE)).split(" ")[0],
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="minutes"),
    }


def joined(earlier, environment):
    """Earlier measurements, to be added to, if they are of the same machine."""
    for name in SAME:
        was, now = earlier["environment"][name], environment[name]
        if was != now:
            raise Failure(f"--add: {name} was {was} and is {now} now; such figures do not compare")
    return {**earlier, "environment": environment}


def environment(given):
    return {
        "cpu": field("/proc/cpuinfo", "model name"),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": os.uname().release,
        "python": sys.version.split()[0],
        "redis_py": redis.__version__,
        "hiredis": bool(redis.utils.HIREDIS_AVAILABLE),
        "cli": output_of(given.cli, "--version"),
        "rustc": output_of("rustc", "--version"),
        "deadline_s": given.deadline,
        "slow_us": SLOW_US,
        "server_settings": SETTINGS,
        "module_settings": MODULE_SETTINGS,
        "quick": given.quick,
        "value_bytes": {
            "results": DataSet(1).value_bytes(),
            "growth": DataSet(1, small=True).value_bytes(),
        },
    }


def main():
    exit_on_sigterm()
    given = options()
    given.out.mkdir(parents=True, exist_ok=True)
    if given.render:
        report.write(json.loads(given.render.read_text()), given.out)
        return
    found = kinds(given)
    contenders.build_tools()
    program = shutil.which("redis-benchmark")
    kept = given.out / MEASUREMENTS
    measured = {"environment": environment(given), "runs": [], "servers": {}}
    if given.add and kept.exists():
        measured = joined(json.loads(kept.read_text()), measured["environment"])
    this = {"load_before": os.getloadavg()[0], **about_this_run()}
    measured["runs"].append(this)
    started, stolen = time.monotonic(), stolen_share()
    amount = {name: getattr(given, name.removesuffix("_s")) for name in AMOUNT}

    with tempfile.TemporaryDirectory(prefix="hygiene-bench-data-") as folder:
        for kind in found:
            parts = measured["servers"].setdefault(str(kind), {})
            parts["below_8"] = kind.is_redis_before_8
            for part in given.only:
                parts.setdefault("amounts", {})[part] = amount
                task = next((task for task in TASKS if task.name == part), None)
                if task:
                    parts[part] = compare(task, kind, given, folder)
                elif part == "growth":
                    parts[part] = growth(kind, given, folder)
                elif part == "limits":
                    parts[part] = limits.run(kind, given, folder, say)
                elif program is None:
                    say(f"{part}: left out, there is no redis-benchmark")
                else:
                    run = {"hook": hook.measure, "observe": observe.measure}[part]
                    parts[part] = run(kind, program, given.rounds, given.requests, say)
                ticks = stolen_share(stolen)
                this |= {
                    "minutes": round((time.monotonic() - started) / 60, 1),
                    "load_after": os.getloadavg()[0],
                    "stolen_percent": round(100 * ticks[0] / max(ticks[1], 1), 2),
                }
                # After each part: a run that is cut short has a report, too.
                kept.write_text(json.dumps(measured, separators=(",", ":")) + "\n")
                report.write(measured, given.out)
    say(f"written: {shown(given.out / report.FILE)}; measurements: {shown(kept)}")


if __name__ == "__main__":
    try:
        main()
    except Failure as failure:
        sys.exit(f"bench: {failure}")
