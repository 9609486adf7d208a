# syntax=docker/dockerfile:1

# Redis with redis-hygiene, configured by redis.conf:
#
#   docker build -t redis-hygiene .
#   docker run --rm -p 127.0.0.1:6379:6379 -v redis-data:/data redis-hygiene
#
# The official image has protected mode off, so give it a password before others
# reach the port: append `redis-server /etc/redis/redis.conf --requirepass ...`, or
# mount a redis.conf of your own, and set REDISCLI_AUTH for the health check.

# The module runs with the C library of the runtime image, so build and runtime
# must be of the same Debian release.
ARG DEBIAN=bookworm
ARG RUST=1.95
ARG REDIS=8.2
ARG VALKEY_BUNDLE=9.1-trixie

FROM rust:${RUST}-${DEBIAN} AS builder

# bindgen reads the module API's header with libclang at build time.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends libclang-dev \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /src

# The dependencies in a layer of their own, so that a change of our code does not
# build them again: a library with nothing in it has the same dependencies. The
# other files are not part of the build, but Cargo.toml names them, and Cargo looks
# that they are there.
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src tests benches \
    && touch src/lib.rs tests/main.rs benches/baseline.rs benches/probe.rs benches/fastest_client.rs \
    && cargo build --release --locked

COPY src ./src
# Cargo goes by file times, and those of a checkout may be older than the empty file's.
RUN touch src/lib.rs \
    && cargo build --release --locked

# The official image of Redis 8 as it is, with its own configuration: its entrypoint
# loads by itself each executable file in this folder. No `loadmodule` line beside it:
# a server exits when a module is loaded twice.
#
#   docker build --target redis-modules -t redis-modules .
FROM redis:${REDIS}-${DEBIAN} AS redis-modules
COPY --from=builder --chmod=0755 \
    /src/target/release/libredis_hygiene.so /usr/local/lib/redis/modules/libredis_hygiene.so

# The same with valkey-bundle, which has Valkey's own modules there. Its Debian is the
# builder's or a newer one.
#
#   docker build --target valkey-bundle -t valkey-bundle .
FROM valkey/valkey-bundle:${VALKEY_BUNDLE} AS valkey-bundle
COPY --from=builder --chmod=0755 \
    /src/target/release/libredis_hygiene.so /usr/lib/valkey/libredis_hygiene.so

# The last one is what `docker build .` makes.
FROM redis:${REDIS}-${DEBIAN}

LABEL org.opencontainers.image.title="redis-hygiene" \
      org.opencontainers.image.description="Redis with a module that keeps a Redis used by Celery clean" \
      org.opencontainers.image.licenses="MIT"

# Not in /usr/local/lib/redis/modules: what lies there the image's entrypoint loads
# by itself, and with redis.conf's loadmodule line the module would be loaded twice,
# at which the server exits. The server refuses a module without an execute bit.
COPY --from=builder --chmod=0755 \
    /src/target/release/libredis_hygiene.so /usr/local/lib/redis/hygiene/libredis_hygiene.so

# In a folder of its own that belongs to the user redis: CONFIG REWRITE writes a
# new file beside the old one.
COPY --chown=redis:redis redis.conf /etc/redis/redis.conf
RUN chown redis:redis /etc/redis
COPY LICENSE /usr/share/doc/redis-hygiene/LICENSE

# The user redis, by number: only then can Kubernetes tell that it is not root.
USER 999:999

# PING alone would also be answered by a server without the module. While the data
# set is loading both are refused; the start period leaves time for that.
# hadolint ignore=DL3025
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD test "$(redis-cli ping)" = PONG && redis-cli module list | grep -qx hygiene

CMD ["redis-server", "/etc/redis/redis.conf"]
