#!/usr/bin/env bash
# Does the first stage of the Dockerfile where no Docker is at hand: its COPY and RUN
# lines, but for apt-get's, in a folder, from a context that holds what .dockerignore
# lets through. Then sees that what the other stages copy is there.
#
# Usage: tests/image.sh           builds in target/image
#        tests/image.sh --quick   has Cargo read the manifest instead of building
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
    echo "image: $*" >&2
    exit 1
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
context=$work/context
mkdir -p "$context" "$work/src" target/image
while read -r line; do
    case $line in
    '#'* | '' | '*') ;;
    '!'*) cp -r "${line#!}" "$context" ;;
    *) fail ".dockerignore: $line is no line that this script knows" ;;
    esac
done <.dockerignore
# What was built stays, as in the layers of an image.
ln -s "$PWD/target/image" "$work/src/target"

if [[ ${1-} == --quick ]]; then
    # It reads the manifest and the lock file, and then finds no folder to build in.
    cargo() {
        local said
        said=$(command cargo "$@" --target-dir /dev/null/none 2>&1) || true
        [[ $said == *'failed to create directory `/dev/null'* ]] || { echo "$said" >&2; return 1; }
    }
    export -f cargo
fi

stage=0
copied=0
# Comments, empty lines and the ends of continued lines away: an instruction a line.
while read -r instruction words; do
    case $instruction in
    FROM) ((++stage)) ;;
    COPY)
        read -ra paths <<<"$words"
        from=$context
        while [[ ${paths[0]} == --* ]]; do
            if [[ ${paths[0]} == --from=builder ]]; then from=$work; fi
            paths=("${paths[@]:1}")
        done
        to=${paths[-1]}
        for path in "${paths[@]:0:${#paths[@]}-1}"; do
            if ((stage == 1)) && [[ -d $from/$path ]]; then
                # Of a folder Docker copies what is in it.
                mkdir -p "$work/src/$to"
                cp -r "$from/$path/." "$work/src/$to"
            elif ((stage == 1)); then
                cp "$from/$path" "$work/src/$to"
            elif [[ ${1-} != --quick || $from == "$context" ]]; then
                [[ -f $from/$path ]] || fail "stage $stage copies $path, which is not there"
            fi
            ((++copied))
        done
        ;;
    RUN)
        if ((stage == 1)) && [[ $words != apt-get* ]]; then
            (cd "$work/src" && bash -euc "$words") || fail "failed: $words"
        fi
        ;;
    esac
done < <(sed -E '/^ *#/d; /^ *$/d' Dockerfile | sed -E ':join; /\\$/ { N; s/ *\\\n */ /; b join }')
[[ ${1-} == --quick ]] || grep -q hygiene.fixttl target/image/release/libredis_hygiene.so ||
    fail 'what was built is not the module'
((stage == 4 && copied >= 8)) || fail "$stage stages and $copied paths were found"
echo "image: the Dockerfile's build is as told"
