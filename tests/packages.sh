#!/usr/bin/env bash
# Installs the Debian packages that are missing: a Redis server and its
# command-line tools, a C toolchain and libclang (the module API's bindings are
# generated at build time), Tcl (Redis's own tests), Python's venv. Does nothing
# where all of it is there.
set -euo pipefail

python=${PYTHON:-python3}
missing=()

has() { command -v "$1" >/dev/null 2>&1; }

# Where clang-sys, which bindgen uses, looks for it, under the names it looks for:
# libclang-cpp, which comes with llvm, is another library.
has_libclang() {
    local folder name
    for folder in "${LIBCLANG_PATH:-/nonexistent}" '/usr/lib/llvm-*/lib' '/usr/lib/*' /usr/lib64; do
        for name in libclang.so 'libclang.so.*' 'libclang-[0-9]*.so*'; do
            compgen -G "$folder/$name" >/dev/null && return
        done
    done
    return 1
}

has cargo || { echo "packages: no cargo on the PATH; install a Rust toolchain (rustup.rs)" >&2; exit 1; }
# Another server can be named, so that no distribution's is needed.
has "${REDIS_SERVER:-redis-server}" || missing+=(redis-server)
has redis-cli || missing+=(redis-tools)
has tclsh || missing+=(tcl)
has cc || missing+=(build-essential)
has_libclang || missing+=(libclang-dev)
"$python" -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3 python3-venv)

((${#missing[@]})) || exit 0

echo "packages: missing: ${missing[*]}"
if ! has apt-get; then
    echo "packages: no apt-get here; install them by hand and run make again" >&2
    exit 1
fi
if ((EUID == 0)); then
    root=()
elif has sudo; then
    # May ask for a password, but never hangs where nobody can type one.
    root=(sudo)
    [[ -t 0 ]] || root+=(-n)
else
    echo "packages: neither root nor sudo; run: apt-get install ${missing[*]}" >&2
    exit 1
fi

install() {
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y --no-install-recommends "${missing[@]}"
}
# The lists of a fresh machine may be absent or old; update only then.
install >/dev/null 2>&1 || { "${root[@]}" apt-get update && install; }
