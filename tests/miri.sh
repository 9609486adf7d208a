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
    tests=(core:: --skip core::beat)
fi
# The clock and the environment are the machine's own.
MIRIFLAGS="-Zmiri-disable-isolation ${MIRIFLAGS:-}" CARGO_TARGET_DIR=target/miri \
    cargo +nightly miri test --locked --lib -- "${tests[@]}"
