"""Does the periodic work of a Celery project happen? A check for cron or a monitor.

    python health.py celery_app:app             asks the result backend's Redis
    python health.py celery_app:app --broker    asks the broker's

Says it in one line and ends as monitoring plugins do: 0 healthy, 1 warning,
2 critical, 3 cannot tell.
"""

import argparse
import importlib

import redis
from replies import tidy

WARNINGS = {"beat_duplicate", "tasks_failing"}


def status(app, broker=False):
    """What HYGIENE.BEATSTATUS says of an app's Redis, as a dict of str."""
    if broker:
        with app.connection_for_read() as connection:
            reply = connection.default_channel.client.execute_command("HYGIENE.BEATSTATUS")
    else:
        reply = app.backend.client.execute_command("HYGIENE.BEATSTATUS")
    reply = tidy(reply)
    return {name: v.decode() if isinstance(v, bytes) else v for name, v in reply.items()}


def severity(verdict):
    if verdict == "healthy":
        return 0
    if verdict == "unknown":
        return 3
    return 1 if verdict in WARNINGS else 2


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("app", help="module:attribute, as celery -A takes it")
    parser.add_argument("--broker", action="store_true", help="ask the broker's Redis")
    arguments = parser.parse_args()
    module, _, attribute = arguments.app.partition(":")
    app = getattr(importlib.import_module(module), attribute or "app")
    try:
        told = status(app, arguments.broker)
    except redis.RedisError as error:
        print(f"unknown: {error}")
        return 3
    print(f"{told['verdict']}: {told['reason']}")
    return severity(told["verdict"])


if __name__ == "__main__":
    raise SystemExit(main())
