"""HYGIENE.* answers dicts, whichever protocol redis-py speaks.

    client = with_dicts(redis.Redis())
    client.execute_command("HYGIENE.BEATSTATUS")["workers"]["live"]

RESP3, redis-py's default since version 8, has maps. With RESP2 the same arrives as
a flat list, name after name with its value; response callbacks make it alike.
Works with Redis, RedisCluster and the clients of redis.asyncio. Names of fields
become str; values stay as they are, bytes unless the client decodes responses.
"""

# Lists of names, not fields with values.
PLAIN_LISTS = {"bound", "evidence", "origins"}
# With nothing in them RESP2 shows no difference to an empty list.
MAPS = {"classes", "result", "systems"}
COMMANDS = "SCAN FIXTTL BEATSTATUS ORPHANS TRIGGER JOBS CANCEL STATS".split()


def text(name):
    return name.decode(errors="backslashreplace") if isinstance(name, bytes) else name


def tidy(value, name=""):
    """A reply, or the value of the field `name` in it, with every map as a dict."""
    if isinstance(value, dict):
        return {text(field): tidy(inner, text(field)) for field, inner in value.items()}
    if not isinstance(value, list):
        return value
    if not value:
        return {} if name in MAPS else []
    if isinstance(value[0], (list, dict)):
        return [tidy(entry) for entry in value]
    if name in PLAIN_LISTS:
        return value
    return tidy(dict(zip(map(text, value[::2]), value[1::2])), name)


def with_dicts(client):
    """Teaches a client the module's replies, and returns it."""
    for command in COMMANDS:
        client.set_response_callback(f"HYGIENE.{command}", lambda reply, **_: tidy(reply))
    return client
