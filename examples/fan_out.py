"""In a Redis Cluster each node sweeps, counts and tells its own keys: ask them all.

python fan_out.py 127.0.0.1 7000
"""

import json
import sys

from redis.cluster import RedisCluster
from replies import tidy

# What adds up; the rest is of one node each.
SUMS = ("scanned", "matched", "stamped", "cut", "deleted", "bytes_freed")


def ask(cluster, *words):
    """A command's reply from each primary, by `host:port`."""
    # The nodes themselves: with the flag PRIMARIES, redis-py 8 refuses a command
    # without key that it does not know.
    nodes = cluster.get_primaries()
    replies = cluster.execute_command(*words, target_nodes=nodes)
    if len(nodes) == 1:
        replies = {nodes[0].name: replies}
    return {node: tidy(reply) for node, reply in replies.items()}


def clean(cluster, *options):
    """HYGIENE.FIXTTL on every primary, added up."""
    replies = ask(cluster, "HYGIENE.FIXTTL", *options)
    return {name: sum(reply[name] for reply in replies.values()) for name in SUMS}


def main(host, port):
    cluster = RedisCluster(host=host, port=int(port), decode_responses=True, socket_timeout=None)
    verdicts = {
        node: status["verdict"] for node, status in ask(cluster, "HYGIENE.BEATSTATUS").items()
    }
    print(json.dumps({"clean": clean(cluster, "DRYRUN"), "verdicts": verdicts}))


if __name__ == "__main__":
    main(*sys.argv[1:3])
