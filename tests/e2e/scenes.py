"""The scenarios: what is done to real Celery, and what BEATSTATUS must say of it."""

import time
from dataclasses import dataclass, field, replace
from typing import Callable

import redis
from processes import Failure, wait_for
from stage import FAST_S, KINDS, SCHEDULE, Stage, installed

SECRET = "Miller"


class LeftOut(Exception):
    """A scenario that cannot be played here; the text says why."""


@dataclass(frozen=True)
class Step:
    """Something is done, then one of the verdicts must come and stay."""

    act: Callable[[Stage], None]
    verdicts: tuple[str, ...]
    state: str
    # From the end of `act`, in seconds.
    within_s: float = 30
    hold_s: float = 3
    # Verdicts that are true for a moment: while `act` lasts, and on the way.
    during: tuple[str, ...] = ()
    on_the_way: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scenario:
    steps: tuple[Step, ...]
    # Of the app (beatapp.py), the server, the module.
    scene: dict = field(default_factory=dict)
    db: int = 0
    settings: dict = field(default_factory=dict)
    kinds: tuple[str, ...] = ("stock", "redbeat", "django")
    # The first Celery that can do it.
    since: tuple[int, ...] = ()

    def expected(self):
        return " > ".join("|".join(step.verdicts) or "(told apart)" for step in self.steps)


def all_start(stage):
    stage.worker()
    stage.beat(schedule="one.schedule")


def beat_dies(stage):
    stage.beats[-1].kill()


def beat_freezes(stage):
    stage.beats[-1].freeze()


def beat_restarts(stage):
    stage.beats[-1].stop()
    stage.beat(schedule="one.schedule")
    stage.beat_speaks()


def beat_restarts_again_and_again(stage):
    """Lives too short for the longer interval, and begins anew each time: long
    enough to send three of the shorter, which shows what is not marked."""
    for _ in range(10):
        stage.beats[-1].stop()
        stage.beat()
        stage.beat_speaks(times=3)
        time.sleep(0.5)
        if stage.watch.last.verdict == "beat_flapping":
            return


def worker_reads_another_queue(stage):
    stage.worker(queues="celery")
    stage.beat()


def worker_dies(stage):
    stage.workers[-1].kill()


def worker_freezes(stage):
    stage.workers[-1].freeze()


def slow_tasks_start(stage):
    stage.worker("-c", "4")
    stage.beat()


def web_and_all_start(stage):
    stage.worker()
    stage.web()
    stage.beat()


def web_starts_without_beat(stage):
    stage.worker()
    stage.web()


def tasks_are_known(stage):
    """Which periodic task ran, how often, when, and how it ended."""

    def wrong():
        found = {task["name"]: task for task in stage.watch.last.reply["tasks"]}
        now_ms = time.time() * 1000
        for name, seconds in SCHEDULE.items():
            task = found.get(name)
            if task is None:
                yield f"no {name}"
                continue
            if task["interval_s"] != seconds:
                yield f"{name} has interval {task['interval_s']}, not {seconds}"
            if task.get("last_status") != "SUCCESS":
                yield f"{name} has status {task.get('last_status')}"
            for field_name in ("last_published_ms", "last_finished_ms"):
                if not now_ms - (task.get(field_name) or 0) < (seconds + 5) * 1000:
                    yield f"{name} has {field_name} {task.get(field_name)}, now is {now_ms:.0f}"

    try:
        wait_for("tasks", lambda: not list(wrong()), deadline_s=90)
    except Failure:
        raise Failure(f"tasks: {'; '.join(wrong())}") from None


def failure_is_told_without_payload(stage):
    reply = str(stage.client.execute_command("HYGIENE.BEATSTATUS", "VERBOSE"))
    if "ValueError" not in reply:
        raise Failure(f"the exception's type is not told: {reply}")
    if SECRET in reply:
        raise Failure(f"the exception's text is told: {reply}")


def trigger(stage):
    """HYGIENE.TRIGGER: each way a task can go is told apart."""
    stage.worker()

    def told(*words, timeout="15s", **expected):
        try:
            reply = stage.client.execute_command("HYGIENE.TRIGGER", *words, "TIMEOUT", timeout)
        except redis.ResponseError as error:
            if "unknown command" in str(error):
                raise LeftOut("the server knows no HYGIENE.TRIGGER") from None
            raise
        line = " ".join(words)
        seen = {name: reply.get(name) for name in expected}
        if seen != expected:
            raise Failure(f"TRIGGER {line}: {seen}, expected {expected}; all: {reply}")
        return reply

    done = told("shop.add", "ARGS", "[2, 3]", state="finished", status="SUCCESS")
    if "5" not in str(done.get("result")):
        raise Failure(f"2 + 3 is told as {done}")
    told("shop.add", "QUEUE", "maintenance", "KWARGS", '{"x": 2, "y": 3}', status="SUCCESS")
    if done["task_id"] not in stage.workers[-1].log_file.read_text(errors="replace"):
        raise Failure(f"the worker's log does not know {done['task_id']}")
    told("maintenance.cleanup_orphaned_jobs", state="finished", status="SUCCESS")
    told("shop.broken", state="finished", status="FAILURE")
    told("shop.nobody_knows", "QUEUE", "celery", state="finished", status="FAILURE")
    # Since Celery 5.6 the message's own `ignore_result: false` wins over the task's
    # (celery/app/trace.py get_actual_ignore_result): there is a result to wait for.
    heard = installed(stage.environment, "celery") >= (5, 6)
    if heard:
        told("shop.forget", state="finished")
    else:
        told("shop.forget", timeout="5s", state="taken")
    told("shop.add", "QUEUE", "unread", "ARGS", "[2, 3]", timeout="2s", state="published")


# Long enough for some messages, from which an interval can be learned.
# How soon is no promise: what is learned by rhythm takes as many even gaps as it takes.
HEALTHY = Step(all_start, ("healthy",), "alive", within_s=60, hold_s=4 * FAST_S)
# A dead beat is told within two of its intervals and 5 s. The last second is for
# the watch itself, on a machine that has other things to do.
SILENT = Step(beat_dies, ("beat_silent",), "silent", within_s=2 * FAST_S + 5 + 1)
# Still popped, or at least connected: either is true for a moment.
UNREAD = ("queue_not_consumed", "workers_absent")


def healthy_then_silent(**options):
    return Scenario((HEALTHY, SILENT), **options)


def from_the_start(act, verdict, *more, **options):
    return Scenario((Step(act, (verdict,), "alive"), *more), **options)


SCENARIOS = {
    "healthy": Scenario(
        (HEALTHY, Step(tasks_are_known, ("healthy",), "alive", hold_s=5)), kinds=KINDS
    ),
    "beat_never_started": Scenario(
        (Step(Stage.worker, ("unknown",), "unknown", hold_s=10),), kinds=("stock", "expected")
    ),
    "web_without_beat": Scenario(
        (Step(web_starts_without_beat, ("unknown",), "unknown", hold_s=20),), kinds=("stock",)
    ),
    "beat_killed": healthy_then_silent(kinds=KINDS),
    "beat_wedged": Scenario((HEALTHY, replace(SILENT, act=beat_freezes)), kinds=KINDS),
    "two_beats": Scenario(
        (HEALTHY, Step(Stage.beat, ("beat_duplicate",), "duplicate")), kinds=("stock", "django")
    ),
    # RedBeat's lock keeps the second one waiting.
    "second_beat_waits": Scenario(
        (HEALTHY, Step(Stage.beat, ("healthy",), "alive", hold_s=10)), kinds=("redbeat",)
    ),
    "beat_restarted": Scenario(
        (HEALTHY, Step(beat_restarts, ("healthy",), "alive", hold_s=12, during=("beat_silent",)))
    ),
    "beat_flapping": Scenario(
        (
            HEALTHY,
            Step(
                beat_restarts_again_and_again,
                ("beat_flapping",),
                "flapping",
                within_s=3,
                hold_s=0,
                during=("beat_silent",),
            ),
        )
    ),
    "worker_without_queue": from_the_start(worker_reads_another_queue, "queue_not_consumed"),
    "worker_killed": Scenario(
        (
            HEALTHY,
            Step(worker_dies, ("workers_absent",), "alive", on_the_way=UNREAD),
        )
    ),
    # Its connections stay; that its heart stopped tells it from a worker that is
    # busy with something long. A message may be in its hands as it freezes.
    "worker_frozen": Scenario(
        (HEALTHY, Step(worker_freezes, (*UNREAD, "unacked_stuck"), "alive", within_s=30))
    ),
    "task_failing": from_the_start(
        all_start,
        "tasks_failing",
        Step(failure_is_told_without_payload, ("tasks_failing",), "alive"),
        scene={"behaviour": "fail"},
    ),
    "task_slow": Scenario(
        (Step(slow_tasks_start, ("healthy",), "alive", hold_s=15),), scene={"behaviour": "slow"}
    ),
    "result_ignored": healthy_then_silent(scene={"behaviour": "forget"}),
    "broker_prefix": healthy_then_silent(
        scene={"prefix": "app1:"}, settings={"key-prefixes": "app1:"}, since=(5, 2)
    ),
    "priority_queues": healthy_then_silent(scene={"priority": 6}),
    "another_db": healthy_then_silent(db=5),
    "web_traffic": Scenario(
        (
            replace(HEALTHY, act=web_and_all_start, hold_s=15),
            SILENT,
        ),
        kinds=KINDS,
    ),
    "trigger": Scenario((Step(trigger, (), ""),), kinds=("stock",)),
}
# About a minute and a half on both environments of `make test`.
FAST = (
    ("5.2", "stock", "beat_killed"),
    ("5.2", "stock", "web_traffic"),
    ("5.2", "stock", "task_failing"),
    ("5.2", "django", "beat_wedged"),
    ("5.2", "stock", "worker_without_queue"),
    ("5.7", "stock", "beat_wedged"),
    ("5.7", "stock", "two_beats"),
    ("5.7", "stock", "beat_restarted"),
    ("5.7", "stock", "worker_killed"),
    ("5.7", "redbeat", "beat_killed"),
    ("5.7", "stock", "trigger"),
)
