"""Debian's redis_exporter and Prometheus, with the files of contrib/monitoring."""

import json
import re
import urllib.parse
import urllib.request
from contextlib import ExitStack
from pathlib import Path

from local_redis import ROOT, free_port
from processes import Failure, end, spawn, wait_for

PROGRAMS = ROOT / "target/monitoring"
CONTRIB = ROOT / "contrib/monitoring"
DASHBOARD = json.loads((CONTRIB / "dashboard.json").read_text())
RATE = "30s"


def available():
    return all((PROGRAMS / name).exists() for name in ("prometheus", "prometheus-redis-exporter"))


def documented_user():
    """The line of docs/monitoring.md that makes a user for monitors, as words."""
    page = (ROOT / "docs/monitoring.md").read_text()
    return next(line for line in page.splitlines() if line.startswith("ACL SETUSER")).split()


class Monitor:
    """Scrapes one server each second. Use it as a context manager."""

    def __init__(self, server):
        self.server = server
        self.port = free_port()
        self.exporter_port = free_port()
        self.instance = f"127.0.0.1:{self.exporter_port}"
        self.dir = Path(server.dir)
        self.stack = ExitStack()

    def __enter__(self):
        self.server.client().execute_command(*documented_user())
        try:
            self._start("exporter", self._exporter())
            self._start("prometheus", self._prometheus())
            wait_for("answer from Prometheus", self._ready, deadline_s=90)
        except BaseException:
            self.stack.close()
            raise
        return self

    def __exit__(self, *_):
        self.stack.close()

    def _start(self, name, command):
        process = spawn(command, self.dir / f"{name}.log", cwd=self.dir)
        self.stack.callback(end, process)

    def _exporter(self):
        return [
            PROGRAMS / "prometheus-redis-exporter",
            *("-redis.addr", f"redis://127.0.0.1:{self.server.port}"),
            *("-redis.user", "monitor", "-redis.password", "secret"),
            *("-web.listen-address", self.instance),
            *("-script", CONTRIB / "hygiene.lua"),
        ]

    def _prometheus(self):
        # The files as they ship, but for the port and the pace.
        scrape = (CONTRIB / "prometheus.yml").read_text()
        scrape = scrape.replace("127.0.0.1:9121", self.instance).replace("15s", "1s")
        (self.dir / "prometheus.yml").write_text(scrape)
        (self.dir / "rules.yml").write_text((CONTRIB / "rules.yml").read_text())
        return [
            PROGRAMS / "prometheus",
            f"--config.file={self.dir / 'prometheus.yml'}",
            f"--storage.tsdb.path={self.dir / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
        ]

    def _api(self, path, **parameters):
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]

    def _ready(self):
        try:
            return self.value("hygiene_up") is not None
        except OSError:
            return False

    def query(self, expression):
        """Labels and number of each series there is now."""
        return [
            (series["metric"], float(series["value"][1]))
            for series in self._api("query", query=expression)["result"]
        ]

    def query_range(self, expression, begin, finish, step_s):
        """Labels and points (Unix time, number) of each series."""
        found = self._api("query_range", query=expression, start=begin, end=finish, step=step_s)
        return [
            (series["metric"], [(moment, float(value)) for moment, value in series["values"]])
            for series in found["result"]
        ]

    def value(self, expression):
        """The number of the only series; nothing where there is none."""
        found = self.query(expression)
        if len(found) > 1:
            raise Failure(f"{expression} has {len(found)} series")
        return found[0][1] if found else None

    def names(self):
        """Of all metrics seen so far."""
        return set(self._api("label/__name__/values"))

    def alerts(self):
        """Name -> alert, pending or firing."""
        return {alert["labels"]["alertname"]: alert for alert in self._api("alerts")["alerts"]}

    def in_panel(self, expression):
        """A dashboard's expression with its variables replaced."""
        for name, value in (("job", "redis"), ("instance", self.instance)):
            expression = expression.replace(f"${name}", value)
        return expression.replace("$__rate_interval", RATE)


def metrics_in(text):
    """The module's metrics that a file names."""
    return set(re.findall(r"(?<![:\w])hygiene_[a-z0-9_]+", text))
