#!/usr/bin/env bash
# Runs the checks one after the other, goes on after a failure, and ends with a
# summary. Exits non-zero when one failed. Left out are what takes minutes more: all
# scenarios, `make monitoring` and `make deb`, which .github/workflows run.
#
# What takes the time of servers and workers at work has a second try, for the machine
# may be a busy one: what is broken fails again. The summary names what needed it.
#
# Usage: tests/all.sh [CHECK ...]        (default: all)
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

module=${MODULE:-target/release/libredis_hygiene.so}
newest=target/venv/celery-5.7

format() { cargo fmt --check; }
clippy() { cargo clippy --locked --all-targets -- -D warnings; }
layers() { tests/layers.sh; }
contrib() { tests/contrib.sh; }
# What provokes panics is in builds for tests only.
build() { cargo build --locked --release && ! grep -q 'provoked by a test' "$module"; }
# It fetches with pip, which Debian's own Python has only inside an environment.
servers() { PATH=$PWD/$newest/bin:$PATH tests/servers.sh; }
# For the tests that replace an older build of the module by this one.
older() { tests/older.sh; }
# Up to three that failed are run once more, by themselves.
cargo_test() {
    local log=target/cargo-test.log failed passed
    cargo test --locked --no-fail-fast 2>&1 | tee "$log" && return
    mapfile -t failed < <(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$log")
    ((${#failed[@]} > 0 && ${#failed[@]} <= 3)) || return 1
    announce "once more: ${failed[*]}"
    again+=("${failed[@]}")
    cargo test --locked -- --exact --test-threads 1 "${failed[@]}" 2>&1 | tee "$log" || return 1
    passed=$(grep -c '^test .* \.\.\. ok$' "$log")
    ((passed == ${#failed[@]}))
}
# With what hangs, a part fails by itself, and the others still have their turn: the
# longest takes two and a half minutes.
drive() { MODULE=$module timeout --verbose --foreground --kill-after 1m 12m "$newest/bin/python" "$@"; }
# Real workers get no more of a busy machine than is left.
or_once_more() {
    "$@" && return
    announce "once more: $check"
    again+=("$check")
    "$@"
}
# One driver, in the newest environment; Celery itself runs in the named one.
e2e() { or_once_more drive tests/e2e/run.py "target/venv/celery-$1"; }
# Of other projects' tests the part that takes a minute a side; make peers has all.
peers() {
    PATH=$PWD/$newest/bin:$PATH tests/peers/fetch.sh redis-7.0 &&
        drive tests/peers/run.py --or-none tcl-fast
}
e2e_5_2() { e2e 5.2; }
e2e_5_7() { e2e 5.7; }
scenarios() { or_once_more drive tests/e2e/scenarios.py --fast; }
# The newest redis-py and an old 4.x.
examples() { drive tests/e2e/examples.py "$newest" target/venv/celery-5.2; }
demo() { drive examples/demo.py; }

checks=("$@")
((${#checks[@]})) || checks=(format clippy layers contrib build servers older cargo_test peers
    e2e_5_2 e2e_5_7 examples scenarios demo)

announce() { printf '\n=== %s ===\n' "$1"; }

summary=()
status=0
for check in "${checks[@]}"; do
    again=()
    announce "$check"
    begin=$SECONDS
    # Nothing may wait for a person.
    if "$check" </dev/null; then
        verdict=ok
    else
        verdict=FAILED
        status=1
    fi
    tries=
    ((${#again[@]} == 0)) || tries="  second try: ${again[*]}"
    summary+=("$(printf '%-12s %-7s %4d s' "$check" "$verdict" $((SECONDS - begin)))$tries")
done

announce summary
printf '%s\n' "${summary[@]}"
exit "$status"
