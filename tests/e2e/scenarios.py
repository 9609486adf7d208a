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
import re
import signal
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "examples"))
sys.dont_write_bytecode = True

import local_redis  # noqa: E402
from local_redis import MODULE, ROOT  # noqa: E402
from processes import Failure, exit_on_sigterm, exiting_on_sigterm  # noqa: E402
from scenes import FAST, SCENARIOS, LeftOut  # noqa: E402
from stage import KINDS, Publisher, Stage, installed  # noqa: E402

# How long nothing may be answered, beyond a step's own time: the watch is a process
# among others, and where it is not let run that says nothing of the server.
STARVED_S = 30

VERSIONS = ("4.4", "5.2", "5.4", "5.6", "5.7")

# --- Playing one ----------------------------------------------------------------


def met(step, publisher, answer):
    """Whether the answer is what the step must lead to."""
    certainty = "none" if step.state == "unknown" else publisher.certainty
    told = (answer.state, answer.certainty)
    return answer.verdict in step.verdicts and told == (step.state, certainty)


def false_ones(step, before, answers, act_ended):
    """What was said in a step though it was not so."""
    verdicts = {*step.verdicts, *step.on_the_way, "healthy"}
    states = {step.state, "alive", "late"}
    if before is not None:
        verdicts.update(before.verdicts)
        states.add(before.state)
    verdict_known = state_known = before is not None
    for answer in answers:
        acting = answer.moment < act_ended
        # Nothing was seen, until the first time that something was.
        verdict_known |= answer.verdict != "unknown"
        state_known |= answer.state != "unknown"
        verdict_holds = (
            answer.verdict in verdicts
            or not verdict_known
            or (acting and answer.verdict in step.during)
        )
        state_holds = answer.state in states or not state_known or (acting and bool(step.during))
        if not (verdict_holds and state_holds):
            yield answer


def play_step(stage, step, before):
    """Returns what to print: the verdict and after how many seconds it came."""
    begun = time.monotonic()
    step.act(stage)
    if not step.verdicts:
        return "told apart"
    ended = time.monotonic()
    watch, publisher = stage.watch, stage.publisher
    # Too late is what was asked for after that time and is not met yet.
    first, due = None, ended + step.within_s
    while first is None:
        watch.since(begun)
        answer = watch.last
        if answer.moment >= ended and met(step, publisher, answer):
            first = answer
        elif answer.asked >= due or time.monotonic() >= due + STARVED_S:
            raise Failure(f"after {step.within_s:.0f} s still {answer}")
        else:
            time.sleep(0.05)
    if first.unlike_until >= due:
        raise Failure(f"only after {first.moment - ended:.1f} s {first}")
    time.sleep(step.hold_s)
    for answer in watch.since(first.moment):
        if answer.verdict not in step.verdicts:
            raise Failure(f"did not stay {first.verdict}: {answer}")
    for answer in false_ones(step, before, watch.since(begun), ended):
        raise Failure(f"{answer.moment - begun:.1f} s after it began, false: {answer}")
    return f"{first.verdict} {first.moment - begun:.1f} s"


@exiting_on_sigterm()
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


def version_of(environment):
    return environment.name.removeprefix("celery-")


def table(results):
    """Scenario and publisher x Celery's version: how long the last verdict took."""
    versions = sorted({version_of(environment) for environment, _, _ in results})
    print("\n" + line("scenario", "publisher", "expected", *versions))
    for name, scenario in SCENARIOS.items():
        for kind in scenario.kinds:
            cells = {
                version_of(environment): mark(outcome, got)
                for (environment, *played), (outcome, got) in results.items()
                if played == [kind, name]
            }
            if cells:
                found = (cells.get(version, "") for version in versions)
                print(line(name, kind, scenario.expected(), *found))


def line(name, kind, expected, *cells):
    told = " ".join(f"{cell:<10}" for cell in cells)
    return f"{name:<21} {kind:<9} {expected:<44} {told}".rstrip()


def mark(outcome, got):
    if outcome == "left out":
        return "-"
    took = re.search(r"[0-9.]+ s$", got)
    return f"ok {took[0]}" if outcome == "ok" and took else outcome


def jobs_of(arguments):
    chosen = []
    for environment in arguments.celery:
        for name, scenario in SCENARIOS.items():
            for kind in scenario.kinds:
                if arguments.fast and (version_of(environment), kind, name) not in FAST:
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
    print(line("scenario", "publisher", "expected", "Celery", "", "got"))
    begun = time.monotonic()
    results, failures = {}, []
    # Processes, not threads: each scenario starts others, and the kernel ends
    # those together with the thread that started them. One that waits for the next
    # scenario is ended by the signal itself; as an exception it could miss it.
    as_usual = (signal.SIGTERM, signal.SIG_DFL)
    with multiprocessing.Pool(arguments.jobs, signal.signal, as_usual) as pool:
        for job, outcome, got, details in pool.imap_unordered(play, jobs):
            environment, kind, name = job
            results[job] = (outcome, got)
            words = (name, kind, SCENARIOS[name].expected(), version_of(environment), outcome, got)
            print(line(*words), flush=True)
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
