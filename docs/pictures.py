"""Draws docs/session.svg and docs/dashboard.svg from what real programs answer.

    docs/pictures.py ENVIRONMENT [session | dashboard]

The session is redis-cli against a throw-away server with the incident of the demo.
The dashboard is contrib/monitoring/dashboard.json, its queries answered by Debian's
Prometheus after five minutes of real Celery; the drawing is this file's, not Grafana's.
"""

import json
import math
import os
import subprocess
import sys
import time
from html import escape
from pathlib import Path

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
for folder in ("examples", "benches", "tests/e2e"):
    sys.path.insert(0, str(ROOT / folder))
sys.dont_write_bytecode = True

import incident  # noqa: E402
from local_redis import MODULE, LocalRedis  # noqa: E402
from monitor import DASHBOARD, Monitor, available  # noqa: E402
from plots import COLOURS, line, number, ticks  # noqa: E402
from processes import beat, end, exit_on_sigterm, spawn, wait_for, worker  # noqa: E402

# --- The session ----------------------------------------------------------------

COLUMNS, CHARACTER, ROW, EDGE = 84, 8.43, 18.5, 18
BACKGROUND, PLAIN, PROMPT, COMMAND = "#1d1f21", "#c5c8c6", "#81a2be", "#f0f0f0"
GOOD, BAD = "#b5bd68", "#f08080"
# Of one answer; a longer one is cut after so many.
MOST_ROWS, CUT_ROWS = 60, 7
WATCHING = {"enforce": "no", "sweep-on-start": "no", "sweep-interval": "0"}


def typed(server, *words):
    """What redis-cli shows a person."""
    command = ["redis-cli", "-3", "--no-raw", "-p", server.port, *words]
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.rstrip("\n").splitlines()


def session():
    """Pairs of a command and the lines it answered."""
    with LocalRedis("session", WATCHING) as server:
        client = server.client()
        incident.write_results(client, incident.now_of(client))
        for _ in range(3):
            task = incident.message("maintenance.cleanup_celery_results", "maintenance")
            client.lpush("maintenance", json.dumps(task))
        client.sadd(
            "_kombu.binding.maintenance", incident.SEP.join(["maintenance", "", "maintenance"])
        )
        told = []
        for words in (
            "HYGIENE.DOCTOR",
            "HYGIENE.FIXTTL",
            "HYGIENE.CONFIG SET enforce yes",
            "SET celery-task-meta-1 {}",
            "TTL celery-task-meta-1",
        ):
            told.append((words, typed(server, *words.split())))
        return told


def spans(row):
    """A row's words with their colour."""
    for word, colour in (("critical", BAD), ("FAILED", BAD), ("WHAT IS WRONG", BAD)):
        if word in row:
            before, _, after = row.partition(word)
            return [(before, PLAIN), (word, colour), (after, PLAIN)]
    return [(row, PLAIN)]


def draw_session(told):
    rows = []
    for at, (command, answer) in enumerate(told):
        if at:
            rows.append([])
        rows.append([("127.0.0.1:6379> ", PROMPT), (command, COMMAND)])
        # Long maps are cut: what is left out shows as an ellipsis.
        shown = answer if len(answer) <= MOST_ROWS else [*answer[:CUT_ROWS], "…"]
        rows += [spans(row[:COLUMNS]) for row in shown]
    width = 2 * EDGE + COLUMNS * CHARACTER
    height = 2 * EDGE + len(rows) * ROW
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}" font-size="14" font-family="'
        'ui-monospace, SFMono-Regular, Menlo, Consolas, DejaVu Sans Mono, monospace">',
        "<title>HYGIENE.DOCTOR and HYGIENE.FIXTTL in redis-cli</title>",
        f'<rect width="{width:.0f}" height="{height:.0f}" rx="8" fill="{BACKGROUND}"/>',
    ]
    for number_of_row, row in enumerate(rows):
        words = "".join(
            f'<tspan fill="{colour}">{escape(word)}</tspan>' for word, colour in row if word
        )
        y = EDGE + (number_of_row + 0.75) * ROW
        if words:
            parts.append(f'<text x="{EDGE}" y="{y:.1f}" xml:space="preserve">{words}</text>')
    return "\n".join([*parts, "</svg>\n"])


# --- The dashboard's story --------------------------------------------------------

LOAD = """
import time
from celery_app import add
end = time.monotonic() + {seconds}
while time.monotonic() < end:
    add.delay(1, 2)
    time.sleep(0.15)
"""
STORY_S = 300


def story(environment, server):
    """Five minutes of a project's life."""
    client, begun = server.client(), time.monotonic()

    def at(second):
        time.sleep(max(0, begun + second - time.monotonic()))

    def start_worker(name):
        return worker(name, environment, server.url, server.dir)

    def start_beat(name):
        return beat(name, environment, server.url, server.dir, BEAT_SCHEDULE="1")

    running = [start_worker("worker1")]
    beats = [start_beat("beat1")]
    orders = spawn(
        [environment / "bin/python", "-c", LOAD.format(seconds=STORY_S)],
        server.dir / "orders.log",
        cwd=ROOT / "examples",
        env={**os.environ, "REDIS_URL": server.url, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    try:
        at(70)
        client.execute_command("HYGIENE.FIXTTL")
        client.config_set("hygiene.enforce", "yes")
        at(110)
        beats.pop().kill()
        at(200)
        beats.append(start_beat("beat2"))
        at(225)
        running.pop().kill()
        at(265)
        running.append(start_worker("worker2"))
        at(STORY_S)
    finally:
        end(orders)
        for process in beats + running:
            process.kill()


def observed(environment):
    """Each panel's series: what the dashboard's queries answered."""
    settings = {"enforce": "no", "verdict-interval": "1s", "sweep-interval": "30s"}
    pictured = LocalRedis("pictured", settings)
    # So small that what a sweep frees shows.
    pictured.options += ["--maxmemory", "64mb"]
    with pictured as server:
        client = server.client()
        incident.write_results(client, incident.now_of(client))
        with Monitor(server) as monitor:
            begun = time.time()
            story(environment, server)
            wait_for("the last scrape", lambda: monitor.value("hygiene_up") == 1)
            finish = time.time()
            found = []
            for panel in DASHBOARD["panels"]:
                for target in panel["targets"]:
                    expression = monitor.in_panel(target["expr"])
                    for labels, points in monitor.query_range(expression, begun, finish, 1):
                        found.append((panel["id"], legend(target, labels), points))
            alerts = monitor.query_range('ALERTS{alertstate="firing"}', begun, finish, 1)
            fired = [(labels["alertname"], points[0][0]) for labels, points in alerts]
            return begun, finish, found, fired


def legend(target, labels):
    words = target["legendFormat"]
    for name, value in labels.items():
        words = words.replace("{{" + name + "}}", value)
    return words


# --- The dashboard's drawing ----------------------------------------------------

CELL_X, CELL_Y, GAP, MARGIN = 44, 30, 8, 12
FRAME, MUTED = "#d0d4da", "#667080"
NAMED = {"green": "#56a64b", "yellow": "#e0b400", "orange": "#ff8833", "red": "#e02f44"}
NAMED["dark-red"] = "#ad0317"


def mapped(panel, name):
    """Value -> words and colour, for the series of that name."""
    defaults = panel["fieldConfig"]["defaults"]["mappings"]
    for override in panel["fieldConfig"]["overrides"]:
        if override["matcher"]["options"] == name:
            defaults = override["properties"][0]["value"]
    return defaults[0]["options"] if defaults else {}


def shown(value, unit):
    if unit == "bytes":
        return f"{value / 2**20:.3g} MiB"
    if unit == "percentunit":
        return f"{value * 100:.2g}%"
    return f"{value:.0f} s" if unit == "s" else number(value)


def colour_of(panel, value):
    reached = [
        step["color"]
        for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
        if step["value"] is None or value >= step["value"]
    ]
    return NAMED.get(reached[-1], reached[-1])


def fill(x, y, width, height, colour, opacity=1.0):
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" '
        f'fill="{colour}" fill-opacity="{opacity}"/>'
    )


def bare(x, y, words, anchor="start", size=12, colour="#222222", weight="normal"):
    """Text without the halo that plots have."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" '
        f'font-weight="{weight}" fill="{colour}">{escape(words)}</text>'
    )


def draw_stat(panel, series, box, _):
    x, y, width, height = box
    value = series[-1][1][-1][1] if series else math.nan
    known = mapped(panel, "").get(f"{value:.0f}") if series else None
    unit = panel["fieldConfig"]["defaults"]["unit"]
    words = known["text"] if known else shown(value, unit)
    colour = known["color"] if known else colour_of(panel, value)
    size = 24 if len(words) < 12 else 18
    return [
        fill(x, y + 24, width, height - 24, NAMED.get(colour, colour)),
        bare(x + width / 2, y + 24 + (height - 24) / 2 + 8, words, "middle", size, "white", "bold"),
    ]


def draw_states(panel, series, box, moments):
    x, y, width, height = box
    begun, finish = moments
    left = x + 60
    per_s = (x + width - 10 - left) / (finish - begun)
    rows = (height - 50) / max(len(series), 1)
    parts = []
    for at, (name, points) in enumerate(series):
        top = y + 28 + at * rows
        parts.append(bare(left - 8, top + rows / 2 + 2, name, "end", 11, MUTED))
        runs = []
        for moment, value in points:
            if runs and runs[-1][2] == value and moment - runs[-1][1] < 5:
                runs[-1][1] = moment
            else:
                runs.append([moment, moment, value])
        for first, last, value in runs:
            known = mapped(panel, name)[f"{value:.0f}"]
            start, wide = left + (first - begun) * per_s, max((last - first + 1) * per_s, 1)
            parts.append(
                fill(start, top, wide, rows - 6, NAMED.get(known["color"], known["color"]), 0.85)
            )
            if wide > 7 * len(known["text"]):
                parts.append(
                    bare(start + 5, top + rows / 2 + 1, known["text"], size=11, colour="white")
                )
    return parts + clock(left, x + width - 10, y + height - 8, moments)


def clock(left, right, y, moments):
    begun, finish = moments
    return [
        bare(
            left + (right - left) * minute * 60 / (finish - begun),
            y,
            f"{minute} min",
            # The last one would stick out of its frame.
            "middle" if finish - begun - minute * 60 > 15 else "end",
            10,
            MUTED,
        )
        for minute in range(1, int((finish - begun) / 60) + 1)
    ]


def draw_lines(panel, series, box, moments):
    x, y, width, height = box
    begun, finish = moments
    left, right, top, bottom = x + 62, x + width - 10, y + 32, y + height - 46
    unit = panel["fieldConfig"]["defaults"]["unit"]
    most = max((value for _, points in series for _, value in points), default=1.0) or 1.0
    high = most * 1.08
    parts = []
    # Round numbers of what is shown.
    scale = 2**20 if unit == "bytes" else 1
    for tick in (scale * tick for tick in ticks(0.0, high / scale, False)):
        level = bottom - tick / high * (bottom - top)
        parts.append(line(left, level, right, level, "#e6e8eb"))
        parts.append(bare(left - 6, level + 4, shown(tick, unit), "end", 10, MUTED))
    parts += clock(left, right, bottom + 14, moments)
    across = left
    for at, (name, points) in enumerate(series):
        colour = COLOURS[at % len(COLOURS)]
        path, previous = "", None
        for moment, value in points:
            new = previous is None or moment - previous > 5
            px = left + (moment - begun) / (finish - begun) * (right - left)
            path += f"{'M' if new else 'L'}{px:.1f} {bottom - value / high * (bottom - top):.1f}"
            previous = moment
        # Wider below, so that one which lies on another leaves it seen.
        wide = 1.4 + 1.6 * min(len(series) - 1 - at, 2)
        parts.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="{wide:.1f}"/>')
        parts.append(fill(across, y + height - 16, 10, 3, colour))
        parts.append(bare(across + 14, y + height - 12, name, size=11))
        across += 34 + 6.1 * len(name)
    return parts


KINDS = {"stat": draw_stat, "state-timeline": draw_states, "timeseries": draw_lines}


def draw_dashboard(begun, finish, found, fired):
    moments = (begun, finish)
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in DASHBOARD["panels"])
    width, head = 24 * CELL_X + 2 * MARGIN, 44
    height = head + rows * CELL_Y + MARGIN
    alerts = ", ".join(
        f"{name} at {(at - begun) / 60:.1f} min"
        for name, at in sorted(fired, key=lambda one: one[1])
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="Helvetica, Arial, Liberation Sans, sans-serif">',
        f"<title>{escape(DASHBOARD['title'])}</title>",
        fill(0, 0, width, height, "#f4f5f6"),
        bare(MARGIN + 2, 28, DASHBOARD["title"], size=18, weight="bold"),
        bare(width - MARGIN, 28, f"Alerts that fired: {alerts or 'none'}", "end", 12, MUTED),
    ]
    for panel in DASHBOARD["panels"]:
        grid = panel["gridPos"]
        x, y = MARGIN + grid["x"] * CELL_X, head + grid["y"] * CELL_Y
        box = (x, y, grid["w"] * CELL_X - GAP, grid["h"] * CELL_Y - GAP)
        series = [(name, points) for number_, name, points in found if number_ == panel["id"]]
        parts.append(
            f'<rect x="{x}" y="{y}" width="{box[2]}" height="{box[3]}" fill="white" stroke="{FRAME}"/>'
        )
        parts.append(bare(x + 8, y + 17, panel["title"], size=12, weight="bold"))
        parts += KINDS[panel["type"]](panel, series, box, moments)
    return "\n".join([*parts, "</svg>\n"])


def main():
    exit_on_sigterm()
    if len(sys.argv) < 2 or not MODULE.exists():
        sys.exit("usage: pictures.py ENVIRONMENT [session | dashboard]; the module must be built")
    wanted = sys.argv[2:] or ["session", "dashboard"]
    if "session" in wanted:
        (DOCS / "session.svg").write_text(draw_session(session()))
    if "dashboard" in wanted:
        if not available():
            sys.exit("pictures: no Prometheus here; tests/monitoring.sh says why")
        environment = Path(sys.argv[1]).resolve()
        (DOCS / "dashboard.svg").write_text(draw_dashboard(*observed(environment)))


if __name__ == "__main__":
    main()
