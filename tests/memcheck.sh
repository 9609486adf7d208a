#!/usr/bin/env bash
# Runs integration tests with a server that is watched: under valgrind, or with the
# module built for the address sanitizer. What is the server's own is left out; an
# invalid access or a lost block with a frame of ours fails.
#
# Usage: tests/memcheck.sh valgrind|address [TEST ...]    (tests as cargo names them)
# HYGIENE_TEST_SERVERS may name the server, else it is redis-server on PATH. It must
# take its memory from the C library's malloc or from a shared jemalloc, as Debian's
# does: one that is linked into the server hides every block from both.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

how=${1:?valgrind or address}
shift
tests=("$@")
# What is quick enough at a twentieth of the speed, and touches each callback.
((${#tests[@]})) || tests=(hostile:: faults:: load:: jobs:: enforcement::the_last scan::keys orphans::a_report trigger::a_task observe::every)

server=${HYGIENE_TEST_SERVERS:-$(command -v redis-server)}
out=$PWD/target/memcheck/$how
rm -rf "$out"
mkdir -p "$out/logs"
wrapper=$out/redis-server

case $how in
valgrind)
    slower=20
    command -v valgrind >/dev/null || { echo "memcheck: no valgrind here; apt-get install valgrind" >&2; exit 1; }
    cat >"$wrapper" <<SH
#!/bin/sh
case "\$*" in --version) exec "$server" "\$@" ;; esac
exec valgrind --quiet --log-file="$out/logs/%p" --leak-check=full --show-leak-kinds=definite \\
    --num-callers=40 --keep-debuginfo=yes --soname-synonyms=somalloc='*jemalloc*' "$server" "\$@"
SH
    ;;
address)
    slower=10
    runtime=$(cc -print-file-name=libasan.so)
    [[ -e $runtime ]] || { echo "memcheck: no libasan here; it comes with gcc" >&2; exit 1; }
    # That of gcc may be a linker's script; the library itself is beside its soname.
    runtime=$(ldconfig -p | awk '/libasan\.so\./ && !found++ { print $NF }')
    cat >"$wrapper" <<SH
#!/bin/sh
case "\$*" in --version) exec "$server" "\$@" ;; esac
# The server is not built for it, so leaks are valgrind's; its own jemalloc is behind ours.
LD_PRELOAD=$runtime\${LD_PRELOAD:+:\$LD_PRELOAD} ASAN_OPTIONS=log_path=$out/logs/asan:detect_leaks=0:abort_on_error=1 exec "$server" "\$@"
SH
    # Only the module is built for it: that needs no standard library of its own, and
    # the runtime, which a library does not bring, is the preloaded one.
    host=$(rustc -vV | sed -n 's/^host: //p')
    RUSTFLAGS="-Zsanitizer=address" CARGO_TARGET_DIR=$PWD/target/address \
        cargo +nightly build --locked --lib --target "$host"
    beside=$PWD/target/address/$host/debug
    ;;
*)
    echo "memcheck: valgrind or address, not $how" >&2
    exit 1
    ;;
esac
chmod +x "$wrapper"

# Tests load the module that lies beside their program.
program=$(cargo test --locked --test servers --no-run 2>&1 | tee /dev/stderr | sed -n 's/^ *Executable .*(\(.*\))$/\1/p')
if [[ -n ${beside:-} ]]; then
    cp "$program" "$beside/servers"
    program=$beside/servers
fi
status=0
HYGIENE_TEST_SERVERS=$wrapper HYGIENE_TEST_TIMES_SLOWER=$slower "$program" "${tests[@]}" || status=1

# A report is a run of lines up to an empty one, once valgrind's mark before each line is
# gone; ours names the library in a frame. Of an Option that holds nothing the optimizer
# looks at what would stand there before it asks whether anything does, where that changes
# nothing: valgrind tells it of RedBeat's entries that are never due, in code without
# `unsafe`.
reports() {
    find "$out/logs" -type f -exec sed -E 's/^==[0-9]+== ?//' {} + |
        awk 'BEGIN { RS = ""; ORS = "\n\n" }
            /redis_hygiene/ && !/still reachable/ && !(/^Conditional jump/ && /overdue_entries/)'
}
ours=$(reports)
count=$(grep -c . < <(reports | awk 'BEGIN { RS = "" } { print NR }') || true)
servers=$(find "$out/logs" -type f | wc -l)
if [[ -n $ours ]]; then
    head -n 400 <<<"$ours"
    status=1
fi
echo "memcheck: $how: $servers logs, $count reports with a frame of ours"
exit "$status"
