#!/usr/bin/env bash
# Fetches other projects' tests into target/peers/NAME/: those of sources.list, from
# PyPI with pip and from Debian's sources with apt-get. Pinned by version and
# checksum, quick when they are there already. What cannot be had is named and left
# out: tests/peers/run.py then says so too. Another checksum is an error.
#
# Usage: tests/peers/fetch.sh [NAME ...]     (default: all)
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
list=$root/tests/peers/sources.list
into=$root/target/peers

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
. "$root/tests/fetch.sh"

download() { # FOLDER PACKAGE OF
    mkdir -p "$1"
    if [[ $2 == *==* ]]; then
        python3 -m pip download --quiet --disable-pip-version-check --no-deps --no-binary :all: --dest "$1" "$2" 2>&1
    else
        know "$3" deb-src && (cd "$1" && apt source --download-only --tar-only "${2%%=*}" 2>&1)
    fi
}

fetch() { # NAME PACKAGE OF FILE SHA256
    local name=$1 package=$2 of=$3 file=$4 sha256=$5
    local there=$into/$name/$file why sum
    if [[ -f $there && $(sha256 "$there") == "$sha256" ]]; then
        echo "peers: $name is there: $there"
        return 0
    fi
    if ! why=$(download "$work/$name" "$package" "$of"); then
        echo "peers: $name left out: $package could not be downloaded: $(tail -n 1 <<<"$why")"
        return 0
    fi
    if [[ ! -f $work/$name/$file ]]; then
        echo "peers: $name left out: $file is no longer to be had: $(ls "$work/$name")"
        return 0
    fi
    sum=$(sha256 "$work/$name/$file")
    if [[ $sum != "$sha256" ]]; then
        echo "peers: $name refused: $file has sha256 $sum, expected $sha256" >&2
        return 1
    fi
    rm -rf "${into:?}/$name"
    mkdir -p "$into/$name"
    mv "$work/$name/$file" "$there"
    echo "peers: $name fetched: $there"
}

failed=0
while read -r name package of file sha256; do
    [[ -n $name && $name != '#'* ]] || continue
    (($# == 0)) || [[ " $* " == *" $name "* ]] || continue
    fetch "$name" "$package" "$of" "$file" "$sha256" || failed=1
done <"$list"
exit "$failed"
