#!/usr/bin/env bash
# Builds an older module from this repository's history, which tests/upgrade.rs
# replaces by the new one: target/older/libredis_hygiene.so. Quick when it is there
# already. Without the history (a shallow clone, an archive) it is left out.
#
# Usage: tests/older.sh [COMMIT]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# The first that hears what passes through queues and remembers it in a hash.
commit=${1:-149f22f2}
into=target/older

if ! commit=$(git rev-parse --quiet --verify "$commit^{commit}" 2>/dev/null); then
    echo "older: left out: this clone's history does not reach back to ${1:-149f22f2}"
    exit 0
fi
if [[ -f $into/libredis_hygiene.so && $(cat "$into/commit" 2>/dev/null) == "$commit" ]]; then
    echo "older: ${commit::8} is there"
    exit 0
fi
rm -rf "$into/source"
mkdir -p "$into/source"
# With the time of now: by that of the commit cargo would take them for built already.
git archive "$commit" | tar --extract --touch --directory "$into/source"
# A folder of its own for what it builds: names there do not tell versions apart.
cargo build --quiet --locked --lib --manifest-path "$into/source/Cargo.toml" --target-dir "$into/build"
cp "$into/build/debug/libredis_hygiene.so" "$into/libredis_hygiene.so"
echo "$commit" >"$into/commit"
echo "older: ${commit::8} built"
