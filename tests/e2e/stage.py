"""What a scenario is played on: a server with the module, real Celery processes,
and a watch that asks for BEATSTATUS all the time."""

import json
import os
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "examples"))

from local_redis import LocalRedis  # noqa: E402
from processes import beat, kill, run_program, spawn, wait_for, worker  # noqa: E402

APP = HERE / "beatapp.py"
FAST_S, SLOW_S = 2, 7
SCHEDULE = {
    "maintenance.cleanup_orphaned_jobs": FAST_S,
    "maintenance.cleanup_celery_results": SLOW_S,
}
KINDS = ("stock", "expected", "redbeat", "django")
SCHEDULERS = {
    "redbeat": ("-S", "redbeat.RedBeatScheduler"),
    "django": ("-S", "django_celery_beat.schedulers:DatabaseScheduler"),
}
PACKAGES = {"redbeat": "celery_redbeat", "django": "django_celery_beat"}


def installed(environment, package):
    """The version of a package in an environment as numbers, or nothing."""
    for found in Path(environment).glob(f"lib/python*/site-packages/{package}-*.dist-info"):
        number = found.name.removesuffix(".dist-info").rpartition("-")[2]
        return tuple(int(part) for part in number.split(".")[:3])
    return None


@dataclass(frozen=True)
class Publisher:
    """Who sends the periodic tasks: `stock` beat, `expected` (stock, its tasks
    named in the settings), `redbeat` or `django`; from one environment."""

    kind: str
    environment: Path

    @property
    def package(self):
        """Its own package and version; nothing for stock beat."""
        return installed(self.environment, PACKAGES.get(self.kind, ""))

    @property
    def is_there(self):
        return self.kind not in PACKAGES or self.package is not None

    @property
    def certainty(self):
        """Beat's mark is in messages since Celery 5.7 and django-celery-beat 2.3."""
        marked = installed(self.environment, "celery") >= (5, 7) or (
            self.kind == "django" and self.package >= (2, 3)
        )
        return "proven" if marked or self.kind in ("expected", "redbeat") else "inferred"

    def settings(self):
        """The module's, for this publisher. No sweep: only watching counts here."""
        ours = {"sweep-on-start": "no", "sweep-interval": "0"}
        if self.kind == "expected":
            ours["expected-tasks"] = " ".join(f"{task}={s}s" for task, s in SCHEDULE.items())
        return ours


@dataclass(frozen=True)
class Answer:
    """One reply of BEATSTATUS, when it was asked for and when it came."""

    asked: float
    moment: float
    reply: dict
    # When one was asked for last whose verdict or publisher was another.
    unlike_until: float = 0.0

    @property
    def said(self):
        return self.verdict, self.state, self.certainty

    @property
    def verdict(self):
        return self.reply["verdict"]

    @property
    def state(self):
        return self.reply["publisher"]["state"]

    @property
    def certainty(self):
        return self.reply["publisher"]["certainty"]

    def __str__(self):
        publisher = self.reply["publisher"]
        return (
            f"{self.verdict}, publisher {self.state} ({self.certainty}, "
            f"{publisher.get('source')}): {self.reply['reason']}"
        )


class Watch(threading.Thread):
    """Keeps each answer whose verdict or publisher differs from the one before."""

    EVERY_S = 0.1

    def __init__(self, server):
        super().__init__(daemon=True)
        self.client = server.client()
        self.stopped = threading.Event()
        self.error = None
        self.last = self._ask()
        self.changes = [self.last]

    def _ask(self):
        asked = time.monotonic()
        reply = self.client.execute_command("HYGIENE.BEATSTATUS")
        return Answer(asked, time.monotonic(), reply)

    def run(self):
        try:
            while not self.stopped.wait(self.EVERY_S):
                before, answer = self.last, self._ask()
                changed = answer.said != before.said
                unlike_until = before.asked if changed else before.unlike_until
                self.last = replace(answer, unlike_until=unlike_until)
                if changed:
                    self.changes.append(self.last)
        except Exception as error:
            self.error = error

    def since(self, moment):
        if self.error:
            raise self.error
        return [answer for answer in self.changes if answer.moment >= moment]

    def stop(self):
        self.stopped.set()
        self.join(10)


class Stage:
    """Use it as a context manager; nothing that was started outlives it."""

    def __init__(self, publisher, scene=None, db=0, settings=None):
        self.publisher = publisher
        self.environment = publisher.environment
        self.scene = {"schedule": SCHEDULE, **(scene or {})}
        self.server = LocalRedis("scene", {**publisher.settings(), **(settings or {})})
        self.url = f"{self.server.url.rpartition('/')[0]}/{db}"
        self.started = []
        self.beats = []
        self.workers = []
        self.watch = None

    def __enter__(self):
        self.server.start()
        try:
            self.client = self.server.client()
            if self.publisher.kind == "django":
                variables = {**self._variables(), **self._django()}
                run_program(self.environment, [HERE / "beatrows.py"], 60, **variables)
            self.watch = Watch(self.server)
            self.watch.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.watch:
            self.watch.stop()
        # Stopped ones hear no TERM, and nothing here needs a warm end.
        for process in self.started:
            kill(process)
        self.server.stop()

    def told(self):
        """What a person needs who looks into a failure."""
        begun = self.watch.changes[0].moment
        answers = [f"{answer.moment - begun:6.1f} s  {answer}" for answer in self.watch.changes]
        return "\n".join(["--- what BEATSTATUS said ---", *answers, self.server.all_logs()])

    def _variables(self):
        return {
            "SCENE": json.dumps(self.scene),
            "PYTHONPATH": str(HERE),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def _django(self):
        return {
            "DJANGO_SETTINGS_MODULE": "beatsettings",
            "BEAT_DATABASE": str(self.server.dir / "beat.sqlite3"),
        }

    def _celery(self, start, name, *options, **variables):
        process = start(
            name,
            self.environment,
            self.url,
            self.server.dir,
            *options,
            app=APP,
            **self._variables(),
            **variables,
        )
        self.started.append(process.process)
        return process

    def worker(self, *options, queues="celery,maintenance"):
        name = f"worker{len(self.workers) + 1}"
        self.workers.append(self._celery(worker, name, *options, queues=queues))

    def beat(self, schedule=None):
        """Starts a beat; `schedule` names its file, one of its own unless told."""
        name = f"beat{len(self.beats) + 1}"
        options = SCHEDULERS.get(self.publisher.kind, ())
        if not options:
            options = ("-s", str(self.server.dir / (schedule or f"{name}.schedule")))
        variables = self._django() if self.publisher.kind == "django" else {}
        self.beats.append(self._celery(beat, name, *options, **variables))

    def beat_speaks(self, times=1):
        """Waits until the newest beat has sent its most frequent task so often."""
        newest, task = self.beats[-1], min(SCHEDULE, key=SCHEDULE.get)

        def sent():
            newest.says("")
            lines = newest.log_file.read_text(errors="replace").splitlines()
            return sum("Sending due task" in line and task in line for line in lines) >= times

        wait_for(f"{times} messages from {newest.name}", sent, deadline_s=60)

    def web(self):
        """Two web processes that send tasks until the end."""
        for seed in (1, 2):
            self.started.append(
                spawn(
                    [self.environment / "bin/python", HERE / "webapp.py", seed],
                    self.server.dir / f"web{seed}.log",
                    env={**os.environ, **self._variables(), "REDIS_URL": self.url},
                )
            )
