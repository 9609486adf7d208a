#!/usr/bin/env bash
# Fetches Debian's Prometheus, promtool and redis_exporter into target/monitoring,
# unpacked and not installed, so that no service starts. Quick when they are there.
# Where they cannot be had it says so; what needs them says so too.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

into=target/monitoring
programs=(prometheus promtool prometheus-redis-exporter)

ready() { for program in "${programs[@]}"; do [[ -x $into/$program ]] || return 1; done; }

ready && exit 0
mkdir -p "$into"
# Those that are installed will do.
for program in "${programs[@]}"; do
    if found=$(command -v "$program"); then ln -sf "$found" "$into/$program"; fi
done
ready && exit 0

command -v apt-get >/dev/null || { echo "monitoring: left out, no apt-get here"; exit 0; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fetch() { (cd "$work" && apt-get -qq -o APT::Sandbox::User=root download prometheus prometheus-redis-exporter 2>&1); }
# The lists of a fresh machine may be absent or old; only root may update them.
if ! fetch >/dev/null && ! { apt-get -qq update && fetch; }; then
    echo "monitoring: left out, Prometheus could not be downloaded"
    exit 0
fi
for package in "$work"/*.deb; do dpkg-deb -x "$package" "$work/root"; done
for program in "${programs[@]}"; do mv "$work/root/usr/bin/$program" "$into/"; done
for program in prometheus promtool; do "$into/$program" --version 2>&1 | head -n 1; done
"$into/prometheus-redis-exporter" --version 2>&1 | grep -o 'build version: *[^ ]*' | sed 's/^/redis_exporter, /' || true
