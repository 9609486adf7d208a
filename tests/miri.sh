#!/usr/bin/env bash
# Runs unit tests of src/core, which needs no server, in Rust's interpreter: it sees
# undefined behaviour in what we use there, too, and values that were never written.
#
# Usage: tests/miri.sh [TEST ...]    (tests as cargo names them)
# Needs the nightly toolchain with the components miri and rust-src.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cargo +nightly miri --version >/dev/null 2>&1 || {
    echo "miri: not here; rustup toolchain install nightly --component miri,rust-src" >&2
    exit 1
}

tests=("$@")
if ((!${#tests[@]})); then
    # The verdict on days of messages, bodies of megabytes, millions of brackets and all that
    # a byte can be are for the compiled tests.
    tests=(core:: --skip core::beat)
    for long in a_message_finds_the_queues two_million_open_brackets a_publish_is \
        the_bound_counts_everything hostile_ a_name_too_long_for_its_pattern \
        names_what_it_does_not_read no_more_than_the_bound the_state_is_known_of_formats \
        cut_anywhere any_byte a_run_of_plain_bytes the_longest_queues every_value_lies \
        jitter_draws_from_below; do
        tests+=(--skip "$long")
    done
fi
# The clock and the environment are the machine's own.
MIRIFLAGS="-Zmiri-disable-isolation ${MIRIFLAGS:-}" CARGO_TARGET_DIR=target/miri \
    cargo +nightly miri test --locked --lib -- "${tests[@]}"
