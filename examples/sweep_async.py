"""A sweep in the background, and a listener to verdicts, with redis.asyncio.

    python sweep_async.py redis://127.0.0.1:6379/0

ASYNC answers a job's id at once, so no timeout of a client ends the sweep.
"""

import asyncio
import json
import sys

import redis.asyncio
from replies import with_dicts


async def sweep(client, *options):
    """Runs HYGIENE.FIXTTL in the server and returns its reply."""
    job = (await client.execute_command("HYGIENE.FIXTTL", *options, "ASYNC"))["job"]
    while True:
        jobs = await client.execute_command("HYGIENE.JOBS")
        mine = next(entry for entry in jobs if entry["id"] == job)
        if mine["state"] == "finished":
            return mine["result"]
        if mine["state"] in ("cancelled", "failed"):
            raise RuntimeError(mine["error"])
        print(f"{mine['state']}, {mine['done_percent']} %", file=sys.stderr)
        await asyncio.sleep(0.1)


async def verdicts(client):
    """Yields each change of verdict, once, as the module tells it."""
    async with client.pubsub() as listener:
        await listener.subscribe("hygiene:events")
        async for message in listener.listen():
            if message["type"] == "message":
                yield json.loads(message["data"])


async def main(url):
    client = with_dicts(redis.asyncio.Redis.from_url(url, decode_responses=True))
    try:
        print(json.dumps(await sweep(client)))
    finally:
        await client.connection_pool.disconnect()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
