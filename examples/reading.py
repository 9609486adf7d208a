"""Reading the module's replies, and the keyspace without the module's help."""

from collections import Counter


def as_map(reply):
    """A map as a dict. A server before 7.0 lets no module send a map: there it
    comes flat, name after name with its value, whatever the protocol."""
    return reply if isinstance(reply, dict) else dict(zip(reply[::2], reply[1::2]))


def by_name(entries, field):
    """A map of named entries, or a list of entries with a name, as a dict."""
    if isinstance(entries, dict) or (entries and isinstance(entries[0], str)):
        return {name: as_map(entry) for name, entry in as_map(entries).items()}
    return {entry[field]: entry for entry in map(as_map, entries)}


def result_ttls(client):
    """The TTL in seconds of every task result; -1 where there is none."""
    keys = list(client.scan_iter("celery-task-meta-*", count=2000))
    pipeline = client.pipeline(transaction=False)
    for key in keys:
        pipeline.pttl(key)
    ttls = dict(zip(keys, pipeline.execute()))
    # -2: expired or deleted since it was listed.
    return {key: ttl / 1000 if ttl >= 0 else ttl for key, ttl in ttls.items() if ttl != -2}


def keyspace(client):
    """Counts that say whether Redis is clean."""
    ttls = result_ttls(client)
    return Counter(
        keys=client.dbsize(),
        results=len(ttls),
        immortal=sum(ttl == -1 for ttl in ttls.values()),
        memory=client.info("memory")["used_memory"],
    )


def configure(client, setting, value):
    """CONFIG SET, or on a server without module settings the module's own."""
    major, minor = (int(part) for part in client.info("server")["redis_version"].split(".")[:2])
    if (major, minor) < (7, 0):
        return client.execute_command("HYGIENE.CONFIG", "SET", setting, value)
    return client.execute_command("CONFIG", "SET", f"hygiene.{setting}", value)
