"""What RedBeat's tests import as fakeredis, with a real server behind it.

RedBeat's own tests run on an imitation of Redis. This has the two names they use
of it; the server is the one of HYGIENE_PEERS_URL.
"""

import os

import redis


class FakeServer:
    """Can be cut off, as the imitation can."""

    connected = True


class FakeRedis(redis.Redis):
    """A client of the real server, until its FakeServer is cut off."""

    def __init__(self, server, **options):
        class Pool(redis.ConnectionPool):
            def get_connection(self, *args, **kwargs):
                if not server.connected:
                    raise redis.ConnectionError("cut off by the test")
                return super().get_connection(*args, **kwargs)

        super().__init__(connection_pool=Pool.from_url(os.environ["HYGIENE_PEERS_URL"], **options))
