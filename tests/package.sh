#!/usr/bin/env bash
# Checks the Debian package: what is in it and with which modes; that it installs by
# itself, runs nothing and belongs to no configuration; that a server started as
# Debian's service starts it loads the module with the sample configuration.
#
# Usage: tests/package.sh            into a folder that is taken for the root
#        tests/package.sh --install  for real, and removed at the end; as root
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
    echo "package: not as told: $*" >&2
    exit 1
}

packages=(target/debian/redis-hygiene_*.deb)
package=${packages[-1]}
[[ -e $package ]] || fail "no $package; run make deb"
work=$(mktemp -d)
server=
cleanup() {
    # Only the server that was started here.
    [[ -z $server ]] || kill "$server" 2>/dev/null || true
    wait 2>/dev/null || true
    [[ ${installed-} != yes ]] || dpkg --purge redis-hygiene
    rm -rf "$work"
}
trap cleanup EXIT

# --- What is in it ----------------------------------------------------------------
dpkg-deb --contents "$package" >"$work/contents"
has() { grep -qE "^$1 +(root/root|0/0) .* \.$2\$" "$work/contents" || fail "no $1 $2 in $(cat "$work/contents")"; }
module=/usr/lib/redis/modules/libredis_hygiene.so
links=(/usr/local/lib/redis/modules/libredis_hygiene.so /usr/lib/valkey/libredis_hygiene.so)
has -rwxr-xr-x $module
for file in doc/redis-hygiene/{README.md,CHANGELOG.md,README.Debian,copyright,examples/hygiene.conf,examples/redis.conf} \
    redis-hygiene/monitoring/{hygiene.lua,rules.yml,prometheus.yml,dashboard.json}; do
    has -rw-r--r-- "/usr/share/$file"
done
! grep -qE ' \./etc/' "$work/contents" || fail 'it has files under /etc'
dpkg-deb --control "$package" "$work/control"
for script in preinst postinst prerm postrm conffiles; do
    [[ ! -e $work/control/$script ]] || fail "it has a $script"
done
depends=$(dpkg-deb --field "$package" Depends)
[[ $depends == *libc6* && $depends != *server* ]] || fail "Depends: $depends"

# --- That it installs ---------------------------------------------------------------
if [[ ${1-} == --install ]]; then
    root=
    installed=yes
    dpkg --install "$package"
else
    root=$work/root
    mkdir -p "$root"/var/lib/dpkg/{info,updates}
    touch "$root"/var/lib/dpkg/{status,available}
    # The folder holds no C library, so what the package depends on is not there.
    dpkg --root "$root" --force-not-root --force-depends --log /dev/null --install "$package" 2>"$work/log" ||
        fail "$(cat "$work/log")"
fi
state=$(dpkg-query --admindir "$root/var/lib/dpkg" --show --showformat '${db:Status-Status}' redis-hygiene)
[[ $state == installed ]] || fail "its state is $state"

# Where the official images look: a file, readable and executable, as their entrypoints
# ask.
for link in "${links[@]}"; do
    [[ -L $root$link && -f $root$link && -x $root$link ]] || fail "$link is no link to the module"
    [[ $root$link -ef $root$module ]] || fail "$link leads to $(readlink "$root$link")"
done

# --- That the server takes it ---------------------------------------------------------
# The sample as it is, but for the root; and the words of the service's ExecStart.
sed "s|/usr/lib/redis|$root&|" "$root/usr/share/doc/redis-hygiene/examples/hygiene.conf" >"$work/hygiene.conf"
cat >"$work/redis.conf" <<CONF
include $work/hygiene.conf
port 0
unixsocket $work/socket
dir $work
logfile $work/redis.log
CONF
redis-server "$work/redis.conf" --supervised systemd --daemonize no >"$work/stdout" 2>&1 &
server=$!
for _ in $(seq 50); do
    [[ $(redis-cli -s "$work/socket" PING 2>/dev/null) == PONG ]] && break
    sleep 0.1
done
loaded=$(redis-cli -s "$work/socket" MODULE LIST) || fail "$(cat "$work/stdout" "$work/redis.log")"
grep -qx hygiene <<<"$loaded" || fail "MODULE LIST says: $loaded"
redis-cli -s "$work/socket" SET celery-task-meta-1 '{}' >/dev/null
ttl=$(redis-cli -s "$work/socket" TTL celery-task-meta-1)
((ttl > 3590 && ttl <= 3600)) || fail "a result got the TTL $ttl"
echo "package: $(basename "$package") is as told"
