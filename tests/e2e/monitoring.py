"""Debian's Prometheus scrapes a real server with real Celery; beat is killed, and the
alert fires.

    tests/e2e/monitoring.py target/venv/celery-5.7

Two minutes, most of them the `for` of the alert.
"""

import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "examples"))
sys.dont_write_bytecode = True

from local_redis import MODULE, LocalRedis  # noqa: E402
from monitor import CONTRIB, DASHBOARD, Monitor, available, metrics_in  # noqa: E402
from processes import Failure, beat, exit_on_sigterm, run_program, wait_for, worker  # noqa: E402
from reading import as_map  # noqa: E402

SETTINGS = {"enforce": "no", "verdict-interval": "1s", "sweep-interval": "5s"}
ORDERS = "from celery_app import add; [add.delay(n, n).get(timeout=20) for n in range(50)]"


def check(what, holds, seen=""):
    if not holds:
        raise Failure(f"not so: {what}; seen: {seen!r}")
    print(f"  ok  {what}", flush=True)


def every_figure_arrives(server, monitor):
    stats = as_map(server.client().execute_command("HYGIENE.STATS"))
    ours = {name for name in stats if ":" not in name}
    known = {name for name, value in stats.items() if isinstance(value, int) and value != -1}
    expected = {f"hygiene_{name.partition(':')[0]}" for name in known} | {"hygiene_up"}
    wait_for("every figure", lambda: not expected - monitor.names())
    names = monitor.names()
    check("every known figure of STATS is in Prometheus", not expected - names, expected - names)
    labels = dict(monitor.query('hygiene_queue_length{queue="maintenance"}')[0][0])
    labels.pop("instance")
    told = {"__name__": "hygiene_queue_length", "db": "db0", "job": "redis", "queue": "maintenance"}
    check("a queue has labels of its own", labels == told, labels)
    families = {name.partition(":")[0] for name in stats if ":" in name}
    for file in ("rules.yml", "dashboard.json"):
        named = {name.removeprefix("hygiene_") for name in metrics_in((CONTRIB / file).read_text())}
        unknown = named - ours - families - {"up"}
        check(f"{file} names only what STATS tells", not unknown, unknown)


def every_panel_has_data(server, monitor):
    stats = as_map(server.client().execute_command("HYGIENE.STATS"))
    # Rates of queues, while the watch is young; and what takes six hours to know.
    unknown = {f"hygiene_{name.partition(':')[0]}" for name, value in stats.items() if value == -1}
    unknown.add("instance:redis_memory_used_bytes:in1d")
    empty = {
        target["expr"]
        for panel in DASHBOARD["panels"]
        for target in panel["targets"]
        if not any(name in target["expr"] for name in unknown)
        and not monitor.query(monitor.in_panel(target["expr"]))
    }
    check("every panel of the dashboard has data", not empty, empty)


def sent(beat_process):
    return beat_process.log_file.read_text().count("Sending due task")


def play(environment, server, monitor):
    url, logs = server.url, server.dir
    with worker("worker", environment, url, logs):
        first = beat("beat1", environment, url, logs, BEAT_SCHEDULE="1")
        run_program(environment, ["-c", ORDERS], 60, REDIS_URL=url)
        wait_for("a beat that is alive", lambda: monitor.value("hygiene_beat_state_code") == 0)
        wait_for("a healthy verdict", lambda: monitor.value("hygiene_verdict_code") == 0)
        leaked = monitor.value("hygiene_results_written_without_ttl_total")
        check("the leak is counted", leaked >= 50, leaked)
        every_figure_arrives(server, monitor)
        wait_for("a recorded rate", lambda: monitor.query("instance:hygiene_stamped:rate5m"))
        every_panel_has_data(server, monitor)
        # The leak is real: it may be pending.
        early = {
            name
            for name, alert in monitor.alerts().items()
            if alert["state"] == "firing" or not name.startswith("CeleryResults")
        }
        check("nothing else alerts while beat, worker and queues are well", not early, early)

        # Its rhythm is known after a few.
        wait_for("ten messages of beat", lambda: sent(first) >= 10)
        first.kill()
        begun = time.monotonic()

        def state():
            return monitor.alerts().get("CeleryBeatSilent", {}).get("state")

        wait_for("a pending alert", lambda: state() == "pending", deadline_s=30)
        check(f"{time.monotonic() - begun:.0f} s after beat's death the alert is pending", True)
        wait_for("a firing alert", lambda: state() == "firing", deadline_s=90)
        alert = monitor.alerts()["CeleryBeatSilent"]
        check(f"after {time.monotonic() - begun:.0f} s it fires", True)
        check("as critical", alert["labels"]["severity"] == "critical", alert)
        check("and says what to do", "Restart beat" in alert["annotations"]["runbook"], alert)
        others = {name for name in monitor.alerts() if name.startswith("CeleryBeat")}
        check("no other alert on beat", others == {"CeleryBeatSilent"}, others)

        with beat("beat2", environment, url, logs, BEAT_SCHEDULE="1"):
            wait_for("an end of the alert", lambda: state() is None, deadline_s=30)
            check("a new beat ends the alert", True)

    server.client().execute_command("MODULE", "UNLOAD", "hygiene")
    wait_for("figures that stop", lambda: monitor.value("hygiene_up") == 0)
    check("without the module the server is still up", monitor.value("redis_up") == 1)
    wait_for("a pending alert", lambda: "HygieneMetricsMissing" in monitor.alerts())
    check("and that the figures are missing is told", True)


def main():
    if len(sys.argv) != 2 or not MODULE.exists():
        sys.exit("usage: monitoring.py ENVIRONMENT; the module must be built")
    if not available():
        sys.exit("monitoring: no Prometheus here; tests/monitoring.sh says why")
    exit_on_sigterm()
    environment = Path(sys.argv[1]).resolve()
    server = LocalRedis("monitored", SETTINGS)
    server.options += ["--enable-module-command", "yes"]
    with server:
        try:
            with Monitor(server) as monitor:
                play(environment, server, monitor)
        except Failure as failure:
            said = server.client().execute_command("HYGIENE.DOCTOR")
            print(f"  FAILED  {failure}\n{said}\n{server.all_logs()}")
            sys.exit(1)
    print("monitoring: all as told")


if __name__ == "__main__":
    main()
