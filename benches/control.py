#!/usr/bin/env python3
"""What the machine does to a piece of work while something else is measured.

A loop that only spins, in pieces as long as a slice: it touches no memory and asks for
nothing, so a piece of it that takes longer on the processor was made longer by the
machine (a guest is billed for what its host takes away). Where single slices are over
their limit, the same wants to be known of such pieces at the same time. It has the
processor only while nobody else wants it.

Usage: control.py    until its input ends; then prints what it saw as JSON
"""

import gc
import json
import os
import select
import signal
import subprocess
import sys
import time

# A slice of the module, `slice-us`.
PIECE_US = 500
# What takes longer is counted as that long.
MOST_US = 50_000


class Control:
    """The loop, in a process of its own."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def finish(self):
        """Ends it and returns what it saw: `pieces`, and of their processor time in us
        `cpu_p999_us` and `longest_cpu_us`."""
        try:
            self.process.stdin.close()
            return json.loads(self.process.stdout.readline())
        finally:
            self.kill()

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def piece():
    """Spins; how long it had the processor, in us."""
    begun, cpu_begun = time.monotonic_ns(), time.thread_time_ns()
    x = 1.0
    while time.monotonic_ns() - begun < PIECE_US * 1_000:
        for _ in range(50):
            x = x * 1.0001 % 7
    return (time.thread_time_ns() - cpu_begun) // 1_000


def reached_by(seen, share):
    """What that share of the pieces is not above; `seen` is how many took each time."""
    beyond = sum(seen) * (1 - share)
    for us in range(len(seen) - 1, -1, -1):
        beyond -= seen[us]
        if beyond < 0:
            return us
    return 0


def main():
    # A terminal sends it to the measurement as well, which ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    gc.disable()
    seen = [0] * (MOST_US + 1)
    while not select.select([sys.stdin], [], [], 0)[0]:
        for _ in range(20):
            seen[min(piece(), MOST_US)] += 1
    told = {"pieces": sum(seen), "cpu_p999_us": reached_by(seen, 0.999), "longest_cpu_us": reached_by(seen, 1)}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
