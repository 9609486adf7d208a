# shellcheck shell=bash disable=SC2154
# Sourced by the scripts that fetch packages: apt-get with lists and folders of its
# own, under the caller's folder $work, so that nothing is installed or changed.

sha256() { sha256sum "$1" | cut -d ' ' -f 1; }

# Where apt-get on this machine finds Debian, or its security updates.
archive() { # RELEASE
    local ends='/debian/?$'
    [[ $1 == *-security ]] && ends='/debian-security/?$'
    apt-get indextargets --format '$(REPO_URI)' 'Identifier: Packages' 'Component: main' |
        grep -E "$ends" | head -n 1
}

apt() { # ARGUMENT ..., with other releases than the machine's
    apt-get --quiet=2 -o APT::Sandbox::User=root -o Acquire::Languages=none \
        -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false \
        -o Dir::Etc::sourcelist="$work/apt/debian.sources" -o Dir::Etc::sourceparts=/nonexistent \
        -o Dir::State::Lists="$work/apt/lists" -o Dir::Cache="$work/apt/cache" "$@"
}

# Reads the lists of a release, once: of its programs, or of its sources.
know() { # RELEASE [deb-src]
    local uri kind=${2-deb}
    [[ -e $work/apt/$1.$kind ]] && return
    mkdir -p "$work/apt/lists/partial" "$work/apt/cache/archives/partial"
    command -v apt-get >/dev/null && uri=$(archive "$1") || { echo "apt-get here knows no Debian archive"; return 1; }
    printf 'Types: %s\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n\n' \
        "$kind" "$uri" "$1" /usr/share/keyrings/debian-archive-keyring.gpg >>"$work/apt/debian.sources"
    apt update 2>&1 && touch "$work/apt/$1.$kind"
}
