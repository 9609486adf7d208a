#!/usr/bin/env bash
# Makes the list of what the module is made of, as CycloneDX, and checks it against
# Cargo's own answer: each crate that is compiled into the module or that builds it is
# there, with its version and licence, and none that only tests use.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target/tools/bin/cargo-cyclonedx cyclonedx --format json --spec-version 1.5 --quiet
mv redis-hygiene.cdx.json target/

list=$(mktemp)
trap 'rm -f "$list"' EXIT
# Of this machine, as the list is.
cargo tree --locked --edges normal,build --prefix none --format '{p}' |
    sed -E 's/^(\S+) v(\S+).*/\1@\2/' | sort -u >"$list"
"${PYTHON:-python3}" - target/redis-hygiene.cdx.json "$list" <<'PYTHON'
import json
import sys

with open(sys.argv[1]) as told, open(sys.argv[2]) as cargo:
    bom, wanted = json.load(told), set(cargo.read().split())
itself = bom["metadata"]["component"]
named = {f"{part['name']}@{part['version']}" for part in [itself, *bom["components"]]}
bare = [part["name"] for part in bom["components"] if not part.get("licenses")]
if named != wanted or bare:
    sys.exit(f"sbom: not as Cargo says: {sorted(named ^ wanted)}; no licence: {bare}")
print(f"sbom: {len(named)} crates, as Cargo says")
PYTHON
