#!/usr/bin/env bash
# Runs the checks one after the other, goes on after a failure, and ends with a
# summary. Exits non-zero when one failed. Left out are what takes minutes more: all
# scenarios, `make monitoring` and `make deb`, which .github/workflows run.
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
cargo_test() { cargo test --locked; }
# One driver, in the newest environment; Celery itself runs in the named one.
e2e() { MODULE=$module "$newest/bin/python" tests/e2e/run.py "target/venv/celery-$1"; }
# Of other projects' tests the part that takes a minute a side; make peers has all.
peers() {
    PATH=$PWD/$newest/bin:$PATH tests/peers/fetch.sh redis-7.0 &&
        MODULE=$module "$newest/bin/python" tests/peers/run.py --or-none tcl-fast
}
e2e_5_2() { e2e 5.2; }
e2e_5_7() { e2e 5.7; }
scenarios() { MODULE=$module "$newest/bin/python" tests/e2e/scenarios.py --fast; }
# The newest redis-py and an old 4.x.
examples() { MODULE=$module "$newest/bin/python" tests/e2e/examples.py "$newest" target/venv/celery-5.2; }
demo() { MODULE=$module "$newest/bin/python" examples/demo.py; }

checks=("$@")
((${#checks[@]})) || checks=(format clippy layers contrib build servers older cargo_test peers
    e2e_5_2 e2e_5_7 examples scenarios demo)

summary=()
status=0
for check in "${checks[@]}"; do
    printf '\n=== %s ===\n' "$check"
    begin=$SECONDS
    # Nothing may wait for a person.
    if "$check" </dev/null; then
        verdict=ok
    else
        verdict=FAILED
        status=1
    fi
    summary+=("$(printf '%-12s %-7s %4d s' "$check" "$verdict" $((SECONDS - begin)))")
done

printf '\n=== summary ===\n'
printf '%s\n' "${summary[@]}"
exit "$status"
