"""The report in Markdown and its plots, from measurements alone."""

import statistics
from dataclasses import dataclass
from pathlib import Path

import control
import hook
import limits
import observe
import plots
from contenders import TASKS

FILE = "report.md"
MB = 1e6

# What is to be reached: see `targets`.
CPU_OF_SCRIPT_BEFORE_8, CPU_OF_SCRIPT = 0.4, 1 / 3
CPU_OF_LUA, CPU_OF_FASTEST, CPU_OF_OTHERS, WALL_OF_SCRIPT = 0.5, 1.0, 1.0, 0.5
P99_OF_IDLE, MAX_OVER_IDLE_MS, RATE_OF_IDLE = 1.5, 2.0, 0.7
HOOK_OTHER, HOOK_RESULT, HOOK_RESULT_PIPELINED = 0.98, 0.95, 0.80
MEMORY_MB, GROWTH_OF_TIME = 16.0, 1.3
ADDED_US = {"1 KB": 2.0, "1 MB": 100.0}
SLICE_P999_MS, LONGEST_WAIT_MS = 1.0, 10.0


@dataclass(frozen=True)
class Stat:
    """The median of some measurements, and their range."""

    values: tuple

    @classmethod
    def of(cls, values):
        values = tuple(value for value in values if value is not None)
        return cls(values) if values else None

    @property
    def middle(self):
        return statistics.median(self.values)

    def __str__(self):
        least, most = figure(min(self.values)), figure(max(self.values))
        if least == most:
            return most
        return f"{figure(self.middle)} [{least} - {most}]"

    def bar(self, series):
        return plots.Bar(series, self.middle, min(self.values), max(self.values))


def figure(value):
    return plots.number(value)


def shown(stat):
    return "-" if stat is None else str(stat)


def table(head, rows, left=1):
    """A Markdown table; the first `left` columns are words, the rest figures."""
    marks = ["---"] * left + ["---:"] * (len(head) - left)
    return [f"| {' | '.join(map(str, row))} |" for row in (head, marks, *rows)] + [""]


# --- A task's figures -------------------------------------------------------------


class Row:
    """A contender's measurements in one task on one server."""

    def __init__(self, contender, keys):
        self.name = contender["name"]
        self.keys = contender["keys"]
        self.expected = contender["expected"]
        self.rounds = contender["rounds"]
        self.scale = keys / self.keys

    @property
    def label(self):
        return self.name if self.scale == 1 else f"{self.name} (scaled from {self.keys:,} keys)"

    def alone(self, name):
        """A figure of each round, None where it failed; scaled to all keys."""
        return [
            round_["alone"][name] * self.scale if "alone" in round_ else None
            for round_ in self.rounds
        ]

    def per_key_us(self, name):
        keys = self.keys * self.scale
        return [None if value is None else value / keys * 1e6 for value in self.alone(name)]

    def probe(self, when, request, name):
        return [round_[when][request][name] if when in round_ else None for round_ in self.rounds]

    def latency_ms(self, when, quantile, request="both"):
        values = self.probe(when, request, f"{quantile}_us")
        return [None if value is None else value / 1_000 for value in values]

    def rate(self, when, request="both"):
        return [
            round_[when][request]["requests"] / round_[when]["seconds"]
            if when in round_ and round_[when]["seconds"]
            else None
            for round_ in self.rounds
        ]

    def refused(self):
        return sum(filter(None, self.probe("beside", "both", "refused")))

    def faults(self):
        """What was not as it should be, a sentence each."""
        for at, round_ in enumerate(self.rounds, 1):
            if "failed" in round_:
                yield f"{self.name}, round {at}: {round_['failed']}"
                continue
            for name, value in self.expected.items():
                got = round_["alone"][name]
                if got is not None and got != value:
                    yield f"{self.name}, round {at}: {name} is {got:,}, not {value:,}"
        if self.refused():
            yield f"{self.name}: {self.refused():,} requests of the other client were refused"


def each(combine, *columns):
    """Combines figures of the same round; None where one is missing."""
    return [
        None if any(value is None for value in values) else combine(*values)
        for values in zip(*columns)
    ]


def ratios(ours, others):
    return Stat.of(each(lambda one, other: one / other if other else None, ours, others))


def rows_of(task, parts):
    if task.name not in parts:
        return {}
    keys = parts["amounts"][task.name]["keys"]
    return {row["name"]: Row(row, keys) for row in parts[task.name]["contenders"]}


def task_section(task, measured):
    environment = measured["environment"]
    yield f"## {task.title}"
    yield ""
    yield f"Ratios are the contender's figure divided by that of {task.base} in the same round."
    yield ""
    for name in ("cpu", "wall", "latency"):
        yield f"![{task.title}: {name}]({task.name}-{name}.svg)"
        yield ""
    for server, parts in measured["servers"].items():
        rows = rows_of(task, parts)
        if not rows:
            continue
        base = rows[task.base]
        yield f"### {task.title}: {server}"
        yield ""
        yield from table(
            ["contender", "server CPU s", "ratio", "wall s", "ratio", "client CPU s"]
            + ["MB to server", "MB from server", f"commands > {environment['slow_us'] / 1e3:g} ms"],
            [
                [
                    row.label,
                    shown(Stat.of(row.alone("server_cpu_s"))),
                    shown(ratios(row.alone("server_cpu_s"), base.alone("server_cpu_s"))),
                    shown(Stat.of(row.alone("wall_s"))),
                    shown(ratios(row.alone("wall_s"), base.alone("wall_s"))),
                    shown(Stat.of(row.alone("client_cpu_s"))),
                    shown(Stat.of([v and v / MB for v in row.alone("received_bytes")])),
                    shown(Stat.of([v and v / MB for v in row.alone("sent_bytes")])),
                    shown(Stat.of(row.alone("slow_commands"))),
                ]
                for row in rows.values()
            ],
        )
        children = max(
            (value for row in rows.values() for value in row.alone("children_cpu_s") if value),
            default=0.0,
        )
        yield f"Child processes of the server used at most {figure(children)} s of CPU in a run."
        yield ""
        yield "Another client beside it, PING and GET in turn (ms; in brackets the range):"
        yield ""
        yield from table(
            ["contender", "p50", "p99", "p99.9", "max", "idle p99", "idle max", "p99 / idle"]
            + ["max - idle max", "requests/s", "of idle"],
            [
                [
                    row.label,
                    *(
                        shown(Stat.of(row.latency_ms("beside", quantile)))
                        for quantile in ("p50", "p99", "p999", "max")
                    ),
                    shown(Stat.of(row.latency_ms("idle", "p99"))),
                    shown(Stat.of(row.latency_ms("idle", "max"))),
                    shown(ratios(row.latency_ms("beside", "p99"), row.latency_ms("idle", "p99"))),
                    shown(over_idle(row)),
                    shown(Stat.of(row.rate("beside"))),
                    shown(ratios(row.rate("beside"), row.rate("idle"))),
                ]
                for row in rows.values()
            ],
        )
        yield "<details><summary>PING and GET apart (ms, medians)</summary>"
        yield ""
        quantiles = ("p50", "p99", "p999", "max")
        yield from table(
            ["contender"]
            + [
                f"{request} {quantile.replace('p999', 'p99.9')}"
                for request in ("PING", "GET")
                for quantile in quantiles
            ]
            + ["idle PING p50", "idle GET p50"],
            [
                [
                    row.label,
                    *(
                        middle(row.latency_ms("beside", quantile, request))
                        for request in ("ping", "get")
                        for quantile in quantiles
                    ),
                    *(
                        middle(row.latency_ms("idle", "p50", request))
                        for request in ("ping", "get")
                    ),
                ]
                for row in rows.values()
            ],
        )
        yield "</details>"
        yield ""
        left_out = parts[task.name]["left_out"]
        faults = [fault for row in rows.values() for fault in row.faults()]
        notes = [f"Left out: {name}: {why}." for name, why in left_out.items()]
        notes += [f"Not as it should be: {fault}." for fault in faults]
        if not faults:
            notes.append("After every run the keys and their TTLs were as they should be.")
        yield from (f"- {note}" for note in notes)
        yield ""


def middle(values):
    stat = Stat.of(values)
    return "-" if stat is None else figure(stat.middle)


def over_idle(row):
    return Stat.of(
        each(
            lambda busy, idle: busy - idle,
            row.latency_ms("beside", "max"),
            row.latency_ms("idle", "max"),
        )
    )


def task_plots(task, measured):
    kinds = (
        ("cpu", "server CPU, us per result", lambda row: row.per_key_us("server_cpu_s"), False),
        (
            "wall",
            "wall time, us per result, nobody else there",
            lambda row: row.per_key_us("wall_s"),
            False,
        ),
        (
            "latency",
            "longest wait of another client, ms (logarithmic)",
            lambda row: row.latency_ms("beside", "max"),
            True,
        ),
    )
    for name, what, figures, log in kinds:
        groups = {}
        for server, parts in measured["servers"].items():
            rows = rows_of(task, parts)
            if name == "latency" and rows:
                stat = Stat.of(rows[task.base].latency_ms("idle", "max"))
                if stat:
                    groups.setdefault("idle server", []).append(stat.bar(server))
            for row in rows.values():
                stat = Stat.of(figures(row))
                # A scaled one would leave no room for the others.
                if stat and row.scale == 1:
                    groups.setdefault(row.name, []).append(stat.bar(server))
        if groups:
            subtitle = f"{what}; bar: median, line: least to most"
            yield (
                f"{task.name}-{name}.svg",
                plots.bars(task.title, subtitle, list(groups.items()), log),
            )


# --- Growth and memory ------------------------------------------------------------


def grown(parts):
    """The rows of the growth that succeeded, by the number of keys."""
    by_size = {}
    for row in parts.get("growth", []):
        if "failed" not in row:
            by_size.setdefault(row["keys"], []).append(row)
    return dict(sorted(by_size.items()))


def per_key_us(rows, name, figure_name, keys):
    return Stat.of([row["runs"][name][figure_name] / keys * 1e6 for row in rows])


def memory_mb(rows, when):
    return Stat.of([row["memory"][when] / MB for row in rows])


def growth_section(measured):
    environment = measured["environment"]
    small = environment["value_bytes"]["growth"]
    yield "## Growth, and the module's own memory"
    yield ""
    yield f"Values of about {small} bytes at every size. Times per key are in microseconds."
    yield ""
    for server in measured["servers"]:
        if grown(measured["servers"][server]):
            yield f"![Growth on {server}]({growth_plot_name(server)})"
            yield ""
    for server, parts in measured["servers"].items():
        for row in parts.get("growth", []):
            if "failed" in row:
                yield f"- Not as it should be: {server}, {row['keys']:,} keys: {row['failed']}."
                yield ""
        sizes = grown(parts)
        if not sizes:
            continue
        yield f"### Growth: {server}"
        yield ""
        body = []
        for name in next(iter(sizes.values()))[0]["runs"]:
            for keys, rows in sizes.items():
                cpu = per_key_us(rows, name, "server_cpu_s", keys)
                wall = per_key_us(rows, name, "wall_s", keys)
                seconds = Stat.of([row["runs"][name]["wall_s"] for row in rows])
                body.append([name, f"{keys:,}", len(rows), cpu, wall, seconds])
        yield from table(["", "keys", "runs", "server CPU us/key", "wall us/key", "wall s"], body)
        yield (
            "Memory in use beyond that of a server without the module, same data, when idle and "
            "the most during a run; idle_rss is the resident memory (MB):"
        )
        yield ""
        yield from table(
            ["keys", *next(iter(sizes.values()))[0]["memory"]],
            [
                [f"{keys:,}", *(memory_mb(rows, when) for when in rows[0]["memory"])]
                for keys, rows in sizes.items()
            ],
        )


def growth_plot_name(server):
    return f"growth-{server.lower().replace(' ', '-')}.svg"


def growth_plots(measured):
    for server, parts in measured["servers"].items():
        sizes = grown(parts)
        if not sizes:
            continue
        curves = {
            name: [
                (keys, per_key_us(rows, name, "server_cpu_s", keys).bar(name))
                for keys, rows in sizes.items()
            ]
            for name in next(iter(sizes.values()))[0]["runs"]
        }
        subtitle = "server CPU per key, microseconds; point: median, line: least to most"
        yield growth_plot_name(server), plots.lines(f"Growth: {server}", subtitle, curves)


# --- The hook ---------------------------------------------------------------------


class Writes:
    """The runs of redis-benchmark with one command, names and pipeline."""

    def __init__(self, parts, command, name, pipeline):
        self.runs = [
            entry["runs"]
            for entry in parts.get("hook", [])
            if (entry["command"], entry["name"], entry["pipeline"]) == (command, name, pipeline)
        ]

    def figures(self, server, name):
        return [run[server][name] for run in self.runs if server in run]

    def without(self, name):
        """The two servers without the module, before and after the one with it."""
        one, again = self.figures("without", name), self.figures("without again", name)
        return each(lambda a, b: (a + b) / 2, one, again)

    def ratio(self, name="per_s"):
        return ratios(self.figures("with", name), self.without(name))

    def noise(self):
        return ratios(self.figures("without again", "per_s"), self.figures("without", "per_s"))


def set_of_setex(parts, pipeline):
    """SET of results where the module is, against SETEX of them where it is not."""
    ours = Writes(parts, "SET", "result", pipeline).figures("with", "per_s")
    return ratios(ours, Writes(parts, "SETEX", "result", pipeline).without("per_s"))


def least(parts, what, pipeline):
    """Our SET against that of the least module, and the latter against none."""
    writes = Writes(parts, "SET", hook.LEAST[what], pipeline)
    bare = writes if what == "events" else Writes(parts, "SETEX", "result", pipeline)
    floor = writes.figures(what, "per_s")
    return ratios(writes.figures("with", "per_s"), floor), ratios(floor, bare.without("per_s"))


def least_rows(parts):
    said = {
        "events": "hears of each write to a string, does nothing; SET of other names",
        "stamp": "job, open key, expiry, PEXPIREAT for replicas; SET of results / SETEX without",
    }
    for what, text in said.items():
        for pipeline in hook.PIPELINES:
            ours, floor = least(parts, what, pipeline)
            yield [text, pipeline, shown(floor), shown(ours)]


def hook_section(measured):
    yield "## What the hook adds to each write"
    yield ""
    yield (
        f"redis-benchmark, {hook.CLIENTS} connections, values of {len(hook.VALUE)} bytes, "
        f"{hook.NAMES_IN_USE:,} names, four times as many requests in a pipeline. A ratio is the server with the module against the "
        "mean of the two without it, in the same round. Equal servers: the second without the "
        "module against the first, which is what these figures differ by themselves."
    )
    yield ""
    yield "![The hook](hook.svg)"
    yield ""
    for server, parts in measured["servers"].items():
        if not parts.get("hook"):
            continue
        yield f"### Hook: {server}"
        yield ""
        body = []
        for pipeline in hook.PIPELINES:
            for command in hook.COMMANDS:
                for name, pattern in hook.NAMES.items():
                    writes = Writes(parts, command, name, pipeline)
                    body.append(
                        [
                            command,
                            f"`{pattern.removesuffix('__rand_int__')}`",
                            pipeline,
                            shown(Stat.of(each(lambda v: v / 1e3, writes.without("per_s")))),
                            shown(
                                Stat.of(each(lambda v: v / 1e3, writes.figures("with", "per_s")))
                            ),
                            shown(writes.ratio()),
                            shown(writes.noise()),
                            shown(Stat.of(writes.without("cpu_us"))),
                            shown(Stat.of(writes.figures("with", "cpu_us"))),
                            shown(writes.ratio("cpu_us")),
                        ]
                    )
        yield from table(
            ["command", "names", "pipeline", "without, k/s", "with, k/s", "ratio"]
            + ["equal servers", "CPU us without", "CPU us with", "ratio"],
            body,
            left=2,
        )
        yield "SET of results with the module against SETEX of them without:"
        yield ""
        yield from table(
            ["pipeline", "ratio"],
            [[pipeline, shown(set_of_setex(parts, pipeline))] for pipeline in hook.PIPELINES],
        )
        yield (
            "No module can be cheaper than the least one that does the same (baseline.rs); what "
            "it costs is the server's:"
        )
        yield ""
        yield from table(
            ["the least module", "pipeline", "least / without", "ours / least"],
            list(least_rows(parts)),
        )
        bare = [
            run["with"]
            for run in Writes(parts, "SET", "result", 1).runs
            if run["with"]["keys"] != run["with"]["with_ttl"]
        ]
        if bare:
            yield "- Not as it should be: SET of results with the module left some without TTL."
            yield ""


def hook_plots(measured):
    groups = []
    for pipeline in hook.PIPELINES:
        for command in hook.COMMANDS:
            for name in hook.NAMES:
                group = [
                    ratio.bar(server)
                    for server, parts in measured["servers"].items()
                    if (ratio := Writes(parts, command, name, pipeline).ratio())
                ]
                if group:
                    groups.append((f"{command}, {name} names, -P {pipeline}", group))
    if groups:
        subtitle = "requests/s with the module divided by those without; bar: median"
        yield (
            "hook.svg",
            plots.bars("What the hook leaves of the throughput", subtitle, groups, marks=(1.0,)),
        )


# --- Observation ------------------------------------------------------------------


def pushes(parts, size, server, name):
    runs = [entry["runs"] for entry in parts.get("observe", []) if entry["size"] == size]
    return [run[server][name] for run in runs]


def added_us(parts, size):
    """Server CPU that a push costs more where the module watches."""
    costs = (pushes(parts, size, server, "cpu_us") for server in ("with", "without"))
    return Stat.of(each(lambda ours, bare: ours - bare, *costs))


def observe_section(measured):
    yield "## What observation adds to each push"
    yield ""
    yield (
        "redis-benchmark pushes kombu's messages to one queue; the module reads each for its "
        f"task, id and sender. {hook.CLIENTS} connections, -P {observe.PIPELINE}; a size is the "
        "body's, which is passed over."
    )
    yield ""
    for server, parts in measured["servers"].items():
        if not parts.get("observe"):
            continue
        yield f"### Observation: {server}"
        yield ""
        body = []
        for size in observe.SIZES:
            rates = [
                Stat.of(each(lambda v: v / 1e3, pushes(parts, size, label, "per_s")))
                for label in observe.SERVERS
            ]
            ratio = ratios(*(pushes(parts, size, label, "per_s") for label in ("with", "without")))
            costs = [Stat.of(pushes(parts, size, label, "cpu_us")) for label in observe.SERVERS]
            cells = [*rates, ratio, *costs, added_us(parts, size)]
            body.append([size, *(shown(cell) for cell in cells)])
        yield from table(
            ["body", "without, k/s", "with, k/s", "ratio", "CPU us without", "CPU us with"]
            + ["added, us"],
            body,
        )


# --- Limits kept --------------------------------------------------------------------


def limit_rows(parts, data):
    """The measurements of a data set of each run of each pass, in their order."""
    rows = {}
    for row in parts.get("limits", []):
        if row["data"] == data:
            rows.setdefault((row["run"], row.get("beside")), []).append(row)
    return rows


def in_ms(rows, name):
    return Stat.of([row[name] / 1e3 if name in row else None for row in rows])


def worst_ms(parts, data, name, over=None):
    """The worst of all passes, in each round; `over` another figure of it."""
    worst = {}
    for row in parts.get("limits", []):
        if row["data"] == data and name in row:
            figure_ms = (row[name] - row.get(over, 0)) / 1e3
            worst[row["round"]] = max(worst.get(row["round"], figure_ms), figure_ms)
    return Stat.of(worst.values())


def lasting_ms(parts, data):
    """The longest slice that comes back: of each pass alone the run without a longer
    one, and of these the worst, in each round."""
    least = {}
    for row in parts.get("limits", []):
        if row["data"] == data and row.get("beside") is False:
            at = least.setdefault(row["round"], {})
            longest = row["longest_cpu_us"] / 1e3
            at[row["run"]] = min(at.get(row["run"], longest), longest)
    return Stat.of(max(runs.values()) for runs in least.values())


def control_ms(rows, name):
    """A figure of the loop that only spins, while passes were alone."""
    return Stat.of([row["control"][name] / 1e3 if row.get("control") else None for row in rows])


def limit_titles(parts):
    amount = parts["amounts"]["limits"]
    keys = f"{amount['keys']:,} keys"
    return {
        "results": f"results, {keys}",
        "crowd": f"a broker, {keys}",
        "big values": f"values of {amount['value_mb']} MiB",
    }


def limits_section(measured):
    yield "## Limits kept"
    yield ""
    yield (
        "What the module counts of its own slices, each pass alone and beside the other client, "
        "when its slices are shorter. CPU is a slice's own time on the processor, wall also what "
        "the machine gave to others meanwhile. A percentile is at most a quarter too high. All "
        "times in ms; wait is the other client's longest. The loop only spins, in pieces of "
        f"{control.PIECE_US / 1e3} ms, on the processor that is free while a pass is alone: of it, too, "
        "the host of a virtual machine takes some ms now and then, and has the guest billed for them. "
        f"So a pass that had a slice of more than {limits.LONGEST_MS} ms of CPU alone is run again, up to "
        f"{limits.MOST_RUNS} times in all: it does the same work in the same order, those that write with "
        "the keys that are left, and what the module itself takes so long for comes back in each run."
    )
    yield ""
    for server, parts in measured["servers"].items():
        if not parts.get("limits"):
            continue
        yield f"### Limits: {server}"
        yield ""
        for data, title in limit_titles(parts).items():
            rows = limit_rows(parts, data)
            if not rows:
                continue
            first = next(iter(rows.values()))
            yield f"{title[0].upper()}{title[1:]}; the idle server's longest wait {in_ms(first, 'idle_us')}:"
            yield ""
            columns = ("cpu_p999_us", "longest_cpu_us", "p999_us", "longest_us", "waited_us")
            yield from table(
                ["pass", "other client", "runs", "slices", "99.9 % CPU", "longest CPU"]
                + ["99.9 % wall", "longest wall", "wait", "loop: 99.9 % CPU", "longest CPU"],
                [
                    [name, "yes" if beside else "no", len(runs), Stat.of([row["slices"] for row in runs])]
                    + [shown(in_ms(runs, column)) for column in columns]
                    + [shown(control_ms(runs, column)) for column in columns[:2]]
                    for (name, beside), runs in rows.items()
                    if beside is not None
                ],
                left=2,
            )
            at_once = [(name, runs) for (name, beside), runs in rows.items() if beside is None]
            told = (f"{name} {in_ms(runs, 'call_us')}" for name, runs in at_once)
            yield f"In a transaction, so in one piece, mean of {limits.CALLS} calls: {'; '.join(told)}."
            yield ""


# --- Targets ----------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    what: str
    limit: float
    reached: Stat
    at_least: bool = False
    unit: str = ""

    def bound(self):
        return f"{'at least' if self.at_least else 'at most'} {figure(self.limit)}{self.unit}"

    def met(self):
        value = self.reached.middle
        return value >= self.limit if self.at_least else value <= self.limit

    def cell(self):
        if self.reached is None:
            return "not measured"
        value = self.reached.middle
        # A difference may be below zero, where a share of the limit says nothing.
        by = value - self.limit if self.unit else (value / self.limit - 1) * 100
        verdict = f"{'pass' if self.met() else '**miss**'} by {abs(by):.1f}{self.unit or ' %'}"
        return f"{self.reached}: {verdict}"


def targets(parts):
    fix, delete, count = (rows_of(task, parts) for task in TASKS)

    def against(rows, ours, other, name):
        if ours not in rows or other not in rows:
            return None
        return ratios(rows[ours].alone(name), rows[other].alone(name))

    script_limit = CPU_OF_SCRIPT_BEFORE_8 if parts["below_8"] else CPU_OF_SCRIPT
    for ours in ("FIXTTL MAXAGE 0", "FIXTTL"):
        script = "redis-py SCAN, TTL, EXPIRE"
        for other, limit in (
            (script, script_limit),
            ("Lua in one go", CPU_OF_LUA),
            ("Lua in portions", CPU_OF_LUA),
            ("fastest client", CPU_OF_FASTEST),
        ):
            yield Target(
                f"server CPU: {ours} / {other}", limit, against(fix, ours, other, "server_cpu_s")
            )
        yield Target(
            f"wall time: {ours} / {script}", WALL_OF_SCRIPT, against(fix, ours, script, "wall_s")
        )
    for task, rows in ((TASKS[1], delete), (TASKS[2], count)):
        own = [contender.name for contender in task.contenders if contender.module]
        for ours in own:
            for contender in task.contenders:
                if not contender.module and contender.name in rows:
                    yield Target(
                        f"server CPU: {ours} / {contender.name}",
                        CPU_OF_OTHERS,
                        against(rows, ours, contender.name, "server_cpu_s"),
                    )
    for task, rows in zip(TASKS, (fix, delete, count)):
        for contender in task.contenders:
            row = rows.get(contender.name)
            if not contender.module or row is None:
                continue
            yield Target(
                f"other client beside {row.name}: p99 / idle p99",
                P99_OF_IDLE,
                ratios(row.latency_ms("beside", "p99"), row.latency_ms("idle", "p99")),
            )
            yield Target(
                f"other client beside {row.name}: max over idle max",
                MAX_OVER_IDLE_MS,
                over_idle(row),
                unit=" ms",
            )
            yield Target(
                f"other client beside {row.name}: requests/s of idle",
                RATE_OF_IDLE,
                ratios(row.rate("beside"), row.rate("idle")),
                at_least=True,
            )
    for pipeline in hook.PIPELINES:
        for command in hook.COMMANDS:
            yield Target(
                f"hook: {command}, other names, pipeline {pipeline}: with / without",
                HOOK_OTHER,
                Writes(parts, command, "other", pipeline).ratio(),
                at_least=True,
            )
        yield Target(
            f"hook: SET of results with / SETEX without, pipeline {pipeline}",
            HOOK_RESULT if pipeline == 1 else HOOK_RESULT_PIPELINED,
            set_of_setex(parts, pipeline),
            at_least=True,
        )
    for size, limit in ADDED_US.items():
        yield Target(
            f"observation: server CPU added to a push of {size}",
            limit,
            added_us(parts, size),
            unit=" us",
        )
    if "limits" in parts:
        yield from limit_targets(parts)
    if "growth" in parts:
        yield from growth_targets(grown(parts), parts["amounts"]["growth"]["keys"])


def limit_targets(parts):
    titles = limit_titles(parts)
    for data, title in titles.items():
        for what, limit, reached in (
            ("99.9 %", SLICE_P999_MS, worst_ms(parts, data, "cpu_p999_us")),
            ("longest that comes back", limits.LONGEST_MS, lasting_ms(parts, data)),
        ):
            yield Target(f"slices, {title}: {what}, CPU", limit, reached, unit=" ms")
    yield Target(
        f"other client beside {titles['big values']}: longest wait over idle's",
        LONGEST_WAIT_MS,
        worst_ms(parts, "big values", "waited_us", over="idle_us"),
        unit=" ms",
    )


def growth_targets(sizes, keys):
    big = sizes.get(keys * 10)
    for name in ("HYGIENE.SCAN", "FIXTTL DRYRUN"):
        yield Target(
            f"memory of the module during {name}, {keys * 10:,} keys",
            MEMORY_MB,
            memory_mb(big, name) if big else None,
            unit=" MB",
        )
    for name in ("HYGIENE.SCAN", "HYGIENE.SCAN MEMORY OFF", "FIXTTL MAXAGE 0", "FIXTTL"):
        for figure_name, what in (("server_cpu_s", "server CPU"), ("wall_s", "wall time")):
            reached = None
            if big and keys in sizes:
                base = per_key_us(sizes[keys], name, figure_name, keys).middle
                values = per_key_us(big, name, figure_name, keys * 10).values
                reached = Stat.of([value / base for value in values])
            yield Target(
                f"{what} per key: {name}, {keys * 10:,} keys / {keys:,} keys",
                GROWTH_OF_TIME,
                reached,
            )


# Why a target is missed where it is, by how its name begins. Profiles were sampled with
# perf on Redis 7.0.15.
WHY = (
    (
        ("server CPU: FIXTTL MAXAGE 0 /", "server CPU: FIXTTL /"),
        "FIXTTL's CPU: a stamp is two look-ups of the key and an entry in the table of expiries, "
        "whoever asks for it; what a module saves is the network, the parser and the reply. In a "
        "profile of FIXTTL MAXAGE 0 on a million results the time is in the server's own dictScan, "
        "dictFind and hashing, waiting for memory; less than 2 % is in the module. With dates it "
        "reads each value, too.",
    ),
    (
        ("server CPU: HYGIENE.SCAN",),
        "SCAN's CPU: what only counts TTLs never touches a value. SCAN reads each result's length, "
        "for those too big to belong in Redis, and its date, for the oldest.",
    ),
    (
        ("wall time: FIXTTL",),
        "FIXTTL's wall time: max-writes-per-sec, 100,000 by default, makes 10 s of a million "
        "stamps.",
    ),
    (
        ("other client beside",),
        "Another client's waits: a slice adds up to its length, 125 us while clients are at work, "
        "to a request that meets it, and one that sends its next request when the last is answered "
        "meets a slice in more than 1 % of its requests. Longer and rarer slices would reach the "
        "ratio and make those who come at any time wait longer. The maximum is that of a few "
        "hundred thousand requests on a virtual machine; it differs as much between two runs on "
        "the idle server.",
    ),
    (
        ("hook: SET of results",),
        "The hook on results: a key that was written is looked up again, and once more for its "
        "expiry, after the command; SETEX has it at hand.",
    ),
    (
        ("hook:",),
        "The hook on other names: the server makes a context for each event that a module listens "
        "to. A module with an empty callback is at 0.91 of SET at pipeline 16; in a profile of "
        "INCR no function of this one reaches 0.7 %.",
    ),
    (
        ("observation:",),
        "Observation: a push is paid for with its event, an open key, the server's copy of the "
        "element and the reading of its headers. The figure is the difference of two servers, each "
        "of which varies by about 1 us from round to round.",
    ),
    (
        ("server CPU per key: FIXTTL",),
        "Growth of FIXTTL: the table of expiries grows with it, is moved each time it doubles, and "
        "at ten million entries no part of it is in the cache.",
    ),
)


def why_missed(columns):
    missed = {
        target.what
        for column in columns
        for target in column.values()
        if target.reached and not target.met()
    }
    for starts, why in WHY:
        of_this = {what for what in missed if what.startswith(starts)}
        missed -= of_this
        if of_this:
            yield f"- {why}"


def target_section(measured):
    servers = measured["servers"]
    columns = [{target.what: target for target in targets(parts)} for parts in servers.values()]
    yield "## Targets"
    yield ""
    yield (
        "Ratios are taken within a round; shown are their median and range. The median decides, "
        "and behind it stands how far it is from the limit."
    )
    yield ""
    rows = []
    for what in dict.fromkeys(what for column in columns for what in column):
        row = [column.get(what) for column in columns]
        if any(target and target.reached for target in row):
            bounds = dict.fromkeys(target.bound() for target in row if target)
            cells = [target.cell() if target else "left out" for target in row]
            rows.append([what, " or ".join(bounds), *cells])
    counted = []
    for column in columns:
        decided = [target.met() for target in column.values() if target.reached]
        counted.append(f"{sum(decided)} of {len(decided)} reached")
    rows.append(["all", "", *counted])
    yield from table(["target", "limit", *servers], rows, left=2 + len(columns))
    reasons = list(why_missed(columns))
    if reasons:
        yield "Why those that are missed are:"
        yield ""
        yield from reasons
        yield ""


# --- The whole --------------------------------------------------------------------


def amounts(parts):
    """How much was done in each part of a server."""
    for part, amount in parts["amounts"].items():
        by = "requests" if part in ("hook", "observe") else "keys"
        yield f"{part}: {amount[by]:,} {by}, {amount['rounds']} rounds"


def head(measured):
    env = measured["environment"]
    idle_s = max(
        amount["idle_s"]
        for parts in measured["servers"].values()
        for amount in parts["amounts"].values()
    )
    yield "# Benchmarks"
    yield ""
    yield from table(
        ["made by", "commit", "on", "minutes", "load before", "load after", "CPU stolen by the host"],
        [
            [f"`{run['command']}`", run["commit"], run["date"], run.get("minutes", "-")]
            + [f"{run['load_before']:.2f}", f"{run.get('load_after', 0):.2f}"]
            + [f"{run.get('stolen_percent', 0)} %"]
            for run in measured["runs"]
        ],
        left=3,
    )
    if env["quick"]:
        yield "A quick run on little data: its figures show that the suite works, and no more."
        yield ""
    rows = [
        *([server, "; ".join(amounts(parts))] for server, parts in measured["servers"].items()),
        ["CPU", f"{env['cpu']}, {env['cores']} cores"],
        ["memory", f"{env['memory_gib']} GiB"],
        ["kernel", f"Linux {env['kernel']}"],
        [
            "clients",
            f"Python {env['python']}, redis-py {env['redis_py']} "
            f"({'with' if env['hiredis'] else 'without'} hiredis), {env['cli']}, {env['rustc']}",
        ],
        ["a result's value", f"about {env['value_bytes']['results']} bytes"],
        ["server settings", settings(env["server_settings"])],
        ["module settings", settings(env["module_settings"]) + "; else defaults"],
    ]
    yield from table(["", ""], rows, left=2)
    yield "How it is measured:"
    yield ""
    yield from (
        f"- {item}"
        for item in (
            "In each round every contender runs once, in an order that turns from round to round.",
            "Each run begins on a new server that has loaded the same RDB file. What only reads "
            "uses one server for both of its runs.",
            "The module is loaded for its own contenders only.",
            "A contender runs twice: alone, for its times and bytes, and beside another client, "
            "for that client's waits, since its requests would count as the server's work.",
            "The other client is a program of its own that sends PING and GET in turn on one "
            "connection, the next when the last is answered. Before, it does the same on the idle "
            f"server, as long as the contender took alone, at most {idle_s:g} s.",
            "Server CPU is used_cpu_user + used_cpu_sys of INFO, all threads, until what was "
            "unlinked is freed. Bytes are total_net_input_bytes and total_net_output_bytes.",
            "Client CPU is that of the contender's own processes.",
            "What starts a process per key runs on fewer keys; its times, bytes and counts are "
            "multiplied, and its row says on how many.",
            f"A run that is not done after {env['deadline_s']:g} s is ended and named.",
            "Figures are medians; in brackets the least and the most.",
        )
    )
    yield ""


def settings(values):
    return ", ".join(
        f"{name} {value}" if value != "" else f'{name} ""' for name, value in values.items()
    )


def write(measured, folder):
    """Writes the report and its plots; old plots go."""
    folder = Path(folder)
    has = {part for parts in measured["servers"].values() for part in parts}
    lines = [*head(measured), *target_section(measured)]
    drawn = []
    for task in TASKS:
        if task.name in has:
            lines += task_section(task, measured)
            drawn += task_plots(task, measured)
    if "growth" in has:
        lines += growth_section(measured)
        drawn += growth_plots(measured)
    if "hook" in has:
        lines += hook_section(measured)
        drawn += hook_plots(measured)
    if "observe" in has:
        lines += observe_section(measured)
    if "limits" in has:
        lines += limits_section(measured)
    for old in folder.glob("*.svg"):
        old.unlink()
    for name, svg in drawn:
        (folder / name).write_text(svg)
    (folder / FILE).write_text("\n".join(lines).rstrip() + "\n")
