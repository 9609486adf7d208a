"""Starting, awaiting and ending processes, none of which may be left behind."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

DEADLINE_S = 60
EXAMPLES = Path(__file__).resolve().parent
APP = EXAMPLES / "celery_app.py"
PR_SET_PDEATHSIG = 1
libc = ctypes.CDLL(None)


class Failure(Exception):
    """Something is not as told; the text says what."""


def wait_for(what, condition, deadline_s=DEADLINE_S, every_s=0.1):
    """Waits until `condition` returns something true and returns that."""
    end_at = time.monotonic() + deadline_s
    while True:
        last = condition()
        if last:
            return last
        if time.monotonic() >= end_at:
            raise Failure(f"no {what} after {deadline_s} s; last seen: {last!r}")
        time.sleep(every_s)


def exit_on_sigterm():
    """Lets `finally` and `with` end the processes when this one is told to end."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


@contextlib.contextmanager
def exiting_on_sigterm():
    """`exit_on_sigterm` for a while, and then as before. For a process that waits for
    work in between: what arrives just before such a wait is heard after it only."""
    before = signal.getsignal(signal.SIGTERM)
    exit_on_sigterm()
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def spawn(command, output, **options):
    """Starts a process whose output goes to a file, in a session of its own, so
    that a Ctrl-C reaches the script first and the process through it. Should
    the script be killed, the kernel ends the process."""
    with open(output, "ab") as file:
        return subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM),
            **options,
        )


def end(process, grace_s=15):
    """TERM to the process, and KILL to all that remains of its session."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace_s)
    kill(process)


def kill(process):
    """KILL to the process and what it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(5)


def run_program(environment, words, deadline_s, **variables):
    """Runs Python in an environment until it ends, and returns what it prints."""
    done = subprocess.run(
        [Path(environment) / "bin/python", *words],
        cwd=EXAMPLES,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=deadline_s,
        check=False,
    )
    if done.returncode:
        raise Failure(f"a program of {environment} failed:\n{done.stderr[-2000:]}")
    return done.stdout


class CeleryProcess:
    """A `celery worker` or `celery beat` of an app, celery_app.py unless told."""

    def __init__(self, name, arguments, environment, redis_url, ready, logs, app=APP, **variables):
        self.name = name
        self.log_file = Path(logs) / f"{name}.log"
        self.process = spawn(
            [Path(environment) / "bin/celery", "-A", app.stem, *arguments],
            self.log_file,
            cwd=app.parent,
            env={
                **os.environ,
                "REDIS_URL": redis_url,
                "PYTHONDONTWRITEBYTECODE": "1",
                "PYTHONWARNINGS": "ignore",
                **variables,
            },
        )
        try:
            wait_for(f"sign of life from {name}", lambda: self.says(ready), deadline_s=60)
        except Failure as failure:
            self.kill()
            raise Failure(f"{failure}\n{self.log_tail()}") from None
        except BaseException:
            self.kill()
            raise

    def says(self, text):
        if self.process.poll() is not None:
            raise Failure(f"{self.name} ended with status {self.process.returncode}")
        return text in self.log_file.read_text(errors="replace")

    def stop(self):
        end(self.process)

    def kill(self):
        kill(self.process)

    def freeze(self):
        """STOP to the process and what it started: it is there and does nothing."""
        os.killpg(self.process.pid, signal.SIGSTOP)

    def log_tail(self, lines=20):
        tail = self.log_file.read_text(errors="replace").splitlines()[-lines:]
        return "\n".join([f"--- last lines of {self.name}'s log ---", *tail])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def worker(name, environment, redis_url, logs, *options, queues="celery,maintenance", **variables):
    """Has two processes unless `options` say otherwise; `variables` are the
    environment's, and `app` names another app's file."""
    arguments = ["worker", "-n", f"{name}@127.0.0.1", "-c", "2", "-l", "INFO", "-Q", queues]
    return CeleryProcess(
        name, [*arguments, *options], environment, redis_url, " ready.", logs, **variables
    )


def beat(name, environment, redis_url, logs, *options, **variables):
    arguments = ["beat", "-l", "INFO", "--pidfile=", "-s", str(Path(logs) / f"{name}.schedule")]
    return CeleryProcess(
        name, [*arguments, *options], environment, redis_url, "beat: Starting", logs, **variables
    )
