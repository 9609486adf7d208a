"""What observation adds to each push of a message, measured with redis-benchmark.

The messages are kombu's, each with an id of its own; nobody pops them, so that
nothing else is measured. Against the same pushes to a server without the module.
"""

import json

import hook
from servers import Server

SERVERS = {"without": False, "with": True}
# Body sizes in bytes, and the share of a run's requests that are pushed of each.
SIZES = {"1 KB": (600, 1.0), "100 KB": (100_000, 0.02), "1 MB": (1_000_000, 0.002)}
LEAST_PUSHES = 100
PIPELINE = 4


def message(body_bytes):
    """A message as kombu 5.7 writes it; redis-benchmark puts a number in the id."""
    ident = "00000000-0000-4000-8000-__rand_int__"
    return json.dumps(
        {
            "body": "W10s" * (body_bytes // 4),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {
                "lang": "py",
                "task": "shop.tasks.send_receipt",
                "id": ident,
                "shadow": None,
                "eta": None,
                "expires": None,
                "group": None,
                "group_index": None,
                "retries": 0,
                "timelimit": [None, None],
                "root_id": ident,
                "parent_id": None,
                "argsrepr": "(1, 2)",
                "kwargsrepr": "{}",
                "origin": "gen4711@web-1",
                "ignore_result": False,
                "stamped_headers": None,
                "stamps": {},
            },
            "properties": {
                "correlation_id": ident,
                "reply_to": "0f5ee1b4-3c1c-3b6e-a1f0-6c5bb9b3c5a1",
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": "celery"},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": ident,
            },
        }
    )


def measure(kind, program, rounds, requests, say):
    """All sizes on both servers, their order turned each round."""
    measured = []
    for turn in range(rounds):
        with Server(kind) as without, Server(kind, module=True) as with_module:
            servers = list(zip(SERVERS, (without, with_module)))
            for size, (body_bytes, share) in SIZES.items():
                say(f"{kind}: observation, round {turn + 1} of {rounds}, {size}")
                asked = ("LPUSH", "celery"), PIPELINE
                pushes = max(int(requests * share), LEAST_PUSHES)
                runs = {}
                for label, server in servers if turn % 2 == 0 else servers[::-1]:
                    # The first run pays for memory that is new to the process.
                    hook.run(program, server, *asked, pushes, message(body_bytes))
                    runs[label] = hook.run(
                        program, server, *asked, pushes, message(body_bytes)
                    )
                    server.control.flushall()
                measured.append({"round": turn, "size": size, "runs": runs})
    return measured
