#!/usr/bin/env python3
"""Runs the integration tests on each server at hand, one after the other.

Prints a table, servers by suites (the modules of tests/main.rs), with what passed,
failed and was left out (wholly or in part), then the failures, and what was left
out with the reasons.
Exits non-zero when a test failed or the chosen server is not there.

Usage: tests/matrix.py [NAME ...]     (default: redis-server on PATH and all of
tests/servers.list; `path` names the one on PATH)
"""

import collections
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
SERVERS = pathlib.Path(os.environ.get("HYGIENE_SERVERS_DIR", ROOT / "target/servers"))
# A suite that hangs is killed and counted as failed.
DEADLINE_S = 1800

VERDICT = re.compile(r"^test (\w+)::(\S+) \.\.\. (ok|FAILED|ignored)", re.M)
OUTPUT = re.compile(r"^---- (\S+) stdout ----\n(.*?)(?=^---- |^successes:$|^failures:$)", re.M | re.S)
LEFT_OUT = re.compile(r"^left out on [^:]+: (.*)$", re.M)


def listed():
    """The names of tests/servers.list, in order."""
    lines = (ROOT / "tests/servers.list").read_text().splitlines()
    return [line.split()[0] for line in lines if line and not line.startswith("#")]


def program(name):
    """The server of that name, or None."""
    if name == "path":
        return shutil.which("redis-server")
    found = [SERVERS / name / "bin" / file for file in ("redis-server", "valkey-server")]
    return next((str(path) for path in found if path.is_file()), None)


def version(path):
    """As a person names it: Redis 7.0.15."""
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=True)
    words = said.stdout.split()
    return f"{words[0]} {words[2].removeprefix('v=')}"


class Run:
    """What the tests said on one server."""

    def __init__(self, path):
        begin = time.monotonic()
        command = ["cargo", "test", "--locked", "--test", "servers", "--", "--show-output"]
        # What tests say past cargo's capture would come in the middle of a verdict.
        with tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=os.environ | {"HYGIENE_TEST_SERVERS": path},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
            try:
                output, _ = process.communicate(timeout=DEADLINE_S)
                self.ended = process.returncode
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                output, _ = process.communicate()
                self.ended = f"no end within {DEADLINE_S} s"
            except BaseException:
                # Its servers must not outlive an interrupted run.
                os.killpg(process.pid, signal.SIGKILL)
                raise
            errors.seek(0)
            output += b"\n--- told past the capture\n" + errors.read()
        self.seconds = time.monotonic() - begin
        self.output = output.decode(errors="replace")
        self.cells = collections.defaultdict(collections.Counter)
        self.failures, self.reasons = [], collections.defaultdict(list)
        left_out = {}
        for test, text in OUTPUT.findall(self.output):
            if why := list(dict.fromkeys(LEFT_OUT.findall(text))):
                left_out[test] = why
        for suite, test, verdict in VERDICT.findall(self.output):
            name = f"{suite}::{test}"
            if verdict == "FAILED":
                self.failures.append(name)
                self.cells[suite]["failed"] += 1
            elif name in left_out:
                self.cells[suite]["left out"] += 1
                for why in left_out[name]:
                    self.reasons[why].append(name)
            else:
                self.cells[suite]["passed"] += 1
        if not self.failures and self.ended != 0:
            self.failures.append(f"the run itself ({self.ended})")


def main():
    names = sys.argv[1:] or ["path", *listed()]
    runs, absent = {}, []
    for name in names:
        path = program(name)
        if path is None:
            absent.append(name)
            continue
        label = version(path)
        print(f"{label}: ", end="", flush=True)
        runs[label] = run = Run(path)
        log = ROOT / "target/matrix" / f"{name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(run.output)
        verdict = f"{len(run.failures)} FAILED" if run.failures else "ok"
        print(f"{verdict}, {run.seconds:.0f} s, {log.relative_to(ROOT)}", flush=True)

    suites = sorted({suite for run in runs.values() for suite in run.cells})
    head = ["passed/failed/left out", *suites]
    rows = [
        [label, *("/".join(str(run.cells[suite][what]) for what in ("passed", "failed", "left out")) for suite in suites)]
        for label, run in runs.items()
    ]
    widths = [max(map(len, column)) for column in zip(head, *rows)]
    print()
    for row in (head, ["-" * width for width in widths], *rows):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |")
    print()
    for label, run in runs.items():
        for failure in run.failures:
            print(f"FAILED on {label}: {failure}")
    for label, run in runs.items():
        for why, tests in run.reasons.items():
            print(f"left out on {label}, {why}: {', '.join(sorted(set(tests)))}")
    for name in absent:
        print(f"left out: {name} is not there; make servers says why")
    total = sum((sum(run.cells.values(), collections.Counter()) for run in runs.values()), collections.Counter())
    print(f"{total['passed']} passed, {total['failed']} failed, {total['left out']} skipped")
    sys.exit(bool(not runs or (sys.argv[1:] and absent) or any(run.failures for run in runs.values())))


if __name__ == "__main__":
    main()
