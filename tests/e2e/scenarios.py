"""Scenarios: what BEATSTATUS says of real Celery, healthy and broken.

    tests/e2e/scenarios.py [--celery ENVIRONMENT ...] [--publishers KIND ...]
                           [--only NAME ...] [--fast] [--jobs N] [--server PATH]

Each scenario is played with each environment and each publisher: stock beat,
RedBeat, django-celery-beat, and stock beat whose tasks are named in
`hygiene.expected-tasks`. The verdict must be the expected one in time, stay so,
and no false one may show at any moment before: a watch asks ten times a second.
"""

import argparse
import multiprocessing
import sys
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Callable

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "examples"))
sys.dont_write_bytecode = True

import local_redis  # noqa: E402
import redis  # noqa: E402
from local_redis import MODULE, ROOT  # noqa: E402
from processes import Failure, exit_on_sigterm, wait_for  # noqa: E402
from stage import FAST_S, SCHEDULE, Publisher, Stage, installed  # noqa: E402

VERSIONS = ("4.4", "5.2", "5.4", "5.6", "5.7")
KINDS = ("stock", "expected", "redbeat", "django")
SECRET = "Miller"


class LeftOut(Exception):
    """A scenario that cannot be played here; the text says why."""


# --- What must be said ----------------------------------------------------------


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
    """Lives too short for the longer interval, and begins anew each time."""
    for _ in range(10):
        stage.beats[-1].stop()
        stage.beat()
        stage.beat_speaks()
        time.sleep(FAST_S)
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
    stage.web()
    all_start(stage)


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
        wait_for("tasks", lambda: not list(wrong()), deadline_s=35)
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
        if SECRET in str(reply):
            raise Failure(f"TRIGGER {line} tells the payload: {reply}")
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
    told("shop.forget", timeout="3s", state="taken")
    told("shop.add", "QUEUE", "unread", "ARGS", "[2, 3]", timeout="2s", state="published")


HEALTHY = Step(all_start, ("healthy",), "alive")
# A dead beat is told within two of its intervals and 5 s.
SILENT = Step(beat_dies, ("beat_silent",), "silent", within_s=2 * FAST_S + 5)
# Still popped, or at least connected: either is true for a moment.
UNREAD = ("queue_not_consumed", "workers_absent")


def healthy_then_silent(**options):
    return Scenario((HEALTHY, SILENT), **options)


def from_the_start(act, verdict, *more, **options):
    return Scenario((Step(act, (verdict,), "alive"), *more), **options)


WITH_EXPECTED = KINDS
SCENARIOS = {
    "healthy": Scenario(
        (HEALTHY, Step(tasks_are_known, ("healthy",), "alive", hold_s=5)), kinds=WITH_EXPECTED
    ),
    "beat_never_started": Scenario(
        (Step(Stage.worker, ("unknown",), "unknown", hold_s=10),), kinds=("stock", "expected")
    ),
    "web_without_beat": Scenario(
        (Step(web_starts_without_beat, ("unknown",), "unknown", hold_s=20),), kinds=("stock",)
    ),
    "beat_killed": healthy_then_silent(kinds=WITH_EXPECTED),
    "beat_wedged": Scenario((HEALTHY, replace(SILENT, act=beat_freezes)), kinds=WITH_EXPECTED),
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
            Step(worker_dies, ("workers_absent",), "alive", within_s=15, on_the_way=UNREAD),
        )
    ),
    # Its connections stay: movement tells.
    "worker_frozen": Scenario((HEALTHY, Step(worker_freezes, UNREAD, "alive", within_s=20))),
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
            replace(HEALTHY, act=web_and_all_start, within_s=45, hold_s=15),
            SILENT,
        ),
        kinds=WITH_EXPECTED,
    ),
    "trigger": Scenario((Step(trigger, (), ""),), kinds=("stock",)),
}
# About a minute and a half on both environments of `make test`.
FAST = (
    ("5.2", "stock", "beat_killed"),
    ("5.2", "stock", "web_traffic"),
    ("5.2", "stock", "task_failing"),
    ("5.2", "django", "beat_wedged"),
    ("5.2", "stock", "worker_frozen"),
    ("5.7", "stock", "beat_wedged"),
    ("5.7", "stock", "two_beats"),
    ("5.7", "stock", "beat_restarted"),
    ("5.7", "stock", "worker_killed"),
    ("5.7", "redbeat", "beat_killed"),
    ("5.7", "stock", "trigger"),
)

# --- Playing one ----------------------------------------------------------------


def met(step, publisher, answer):
    """Whether the answer is what the step must lead to."""
    certainty = "none" if step.state == "unknown" else publisher.certainty
    told = (answer.state, answer.certainty)
    return answer.verdict in step.verdicts and told == (step.state, certainty)


def false_ones(step, before, answers, act_ended):
    """What was said in a step though it was not so."""
    for answer in answers:
        verdicts = {*step.verdicts, *step.on_the_way, "healthy"}
        states = {step.state, "alive", "late"}
        if before is None:
            verdicts.add("unknown")
            states.add("unknown")
        else:
            verdicts.update(before.verdicts)
            states.add(before.state)
        if answer.moment < act_ended and step.during:
            verdicts.update(step.during)
            states.add("silent")
        if answer.verdict not in verdicts or answer.state not in states:
            yield answer


def play_step(stage, step, before):
    """Returns what to print: the verdict and after how many seconds it came."""
    begun = time.monotonic()
    step.act(stage)
    if not step.verdicts:
        return "told apart"
    ended = time.monotonic()
    watch, publisher = stage.watch, stage.publisher
    first = None
    while first is None and time.monotonic() < ended + step.within_s:
        watch.since(begun)
        answer = watch.last
        if answer.moment >= ended and met(step, publisher, answer):
            first = answer
        time.sleep(0.05)
    if first is None:
        raise Failure(f"after {step.within_s:.0f} s still {watch.last}")
    time.sleep(step.hold_s)
    for answer in watch.since(first.moment):
        if answer.verdict not in step.verdicts:
            raise Failure(f"did not stay {first.verdict}: {answer}")
    for answer in false_ones(step, before, watch.since(begun), ended):
        raise Failure(f"{answer.moment - begun:.1f} s after it began, false: {answer}")
    return f"{first.verdict} {first.moment - begun:.1f} s"


def play(job):
    """Plays one scenario; answers (job, outcome, what was got, details)."""
    environment, kind, name = job
    scenario, publisher = SCENARIOS[name], Publisher(kind, environment)
    got, told = [], ""
    try:
        if not publisher.is_there:
            raise LeftOut(f"no {kind} in {environment.name}")
        if installed(environment, "celery") < scenario.since:
            raise LeftOut(f"{environment.name} has no such thing")
        with Stage(publisher, scenario.scene, scenario.db, scenario.settings) as stage:
            try:
                before = None
                for step in scenario.steps:
                    got.append(play_step(stage, step, before))
                    before = step
            except Exception:
                told = stage.told()
                raise
    except LeftOut as reason:
        return job, "left out", str(reason), ""
    except Failure as failure:
        first, *rest = str(failure).splitlines()
        return job, "FAILED", " > ".join([*got, first]), "\n".join([*rest, told])
    except Exception as error:
        details = f"{traceback.format_exc()}\n{told}"
        return job, "FAILED", " > ".join([*got, repr(error)]), details
    return job, "ok", " > ".join(got), ""


# --- The table ------------------------------------------------------------------


def row(environment, kind, name, expected, outcome, got):
    print(f"{environment:<11} {kind:<9} {name:<21} {expected:<37} {outcome:<8} {got}", flush=True)


def table(results):
    """Scenario x environment and publisher."""
    columns = sorted({(job[0].name.removeprefix("celery-"), KINDS.index(job[1])) for job in results})
    marks = {"ok": "ok", "FAILED": "FAILED", "left out": "-"}
    print(f"\n{'':<59} " + " ".join(f"{version:<7}" for version, _ in columns))
    heads = " ".join(f"{KINDS[kind][:7]:<7}" for _, kind in columns)
    print(f"{'scenario':<21} {'expected':<37} {heads}")
    for name, scenario in SCENARIOS.items():
        cells = {
            (job[0].name.removeprefix("celery-"), KINDS.index(job[1])): marks[outcome]
            for job, (outcome, _) in results.items()
            if job[2] == name
        }
        if cells:
            line = " ".join(f"{cells.get(column, ''):<7}" for column in columns)
            print(f"{name:<21} {scenario.expected():<37} {line}".rstrip())


def jobs_of(arguments):
    chosen = []
    for environment in arguments.celery:
        for name, scenario in SCENARIOS.items():
            for kind in scenario.kinds:
                version = environment.name.removeprefix("celery-")
                if arguments.fast and (version, kind, name) not in FAST:
                    continue
                if name in arguments.only and kind in arguments.publishers:
                    chosen.append((environment, kind, name))
    return chosen


def arguments_of(words):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    environments = [ROOT / f"target/venv/celery-{version}" for version in VERSIONS]
    parser.add_argument("--celery", nargs="+", type=Path, default=environments)
    parser.add_argument("--publishers", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--only", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    parser.add_argument("--fast", action="store_true", help="the subset of make test")
    parser.add_argument("--jobs", type=int, default=4, help="how many side by side")
    parser.add_argument("--server", default=local_redis.SERVER)
    arguments = parser.parse_args(words)
    arguments.celery = [environment.resolve() for environment in arguments.celery]
    return arguments


def main():
    exit_on_sigterm()
    arguments = arguments_of(sys.argv[1:])
    local_redis.SERVER = arguments.server
    if not MODULE.exists():
        sys.exit(f"scenarios: {MODULE} is not there; run make build")
    version = ".".join(str(part) for part in local_redis.server_version())
    for environment in list(arguments.celery):
        if not (environment / ".ready").exists():
            print(f"scenarios: left out, no environment: {environment}", flush=True)
            arguments.celery.remove(environment)
    jobs = jobs_of(arguments)
    if not jobs:
        sys.exit("scenarios: nothing to play")
    print(f"scenarios: {len(jobs)} against Redis {version}, {arguments.jobs} at a time\n")
    row("environment", "publisher", "scenario", "expected", "", "got")
    begun = time.monotonic()
    results, failures = {}, []
    # Processes, not threads: each scenario starts others, and the kernel ends
    # those together with the thread that started them.
    with multiprocessing.Pool(arguments.jobs, initializer=exit_on_sigterm) as pool:
        for job, outcome, got, details in pool.imap_unordered(play, jobs):
            environment, kind, name = job
            results[job] = (outcome, got)
            row(environment.name, kind, name, SCENARIOS[name].expected(), outcome, got)
            if outcome == "FAILED":
                failures.append((job, got, details))
    for (environment, kind, name), got, details in failures:
        print(f"\n=== {environment.name} {kind} {name}: {got}\n{details}")
    table(results)
    count = Counter(outcome for outcome, _ in results.values())
    print(f"\nscenarios: {time.monotonic() - begun:.0f} s in all")
    print(f"{count['ok']} passed, {count['FAILED']} failed, {count['left out']} skipped")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
