#!/usr/bin/env bash
# Holds the layers apart: what the compiler does not check, this does.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

failed=0

# forbid RULE PATTERN FILE...: no line of code (comments aside) may match.
forbid() {
    local rule=$1 pattern=$2 hits
    shift 2
    (($#)) || return 0
    hits=$(grep -nHE "$pattern" "$@" | grep -vE '^[^:]+:[0-9]+:\s*//' || true)
    if [[ -n $hits ]]; then
        printf 'layers: %s:\n%s\n' "$rule" "$hits"
        failed=1
    fi
}

mapfile -t core < <(find src/core -name '*.rs')
mapfile -t outside_server < <(find src -name '*.rs' -not -path 'src/server/*')
mapfile -t outside_log < <(find src -name '*.rs' -not -path 'src/server/log.rs')

forbid 'src/core must not know Redis' 'redis_module|crate::server' "${core[@]}"
forbid 'unsafe only under src/server' '\bunsafe\s*(\{|fn\b|impl\b|extern\b|trait\b)|unsafe_code' "${outside_server[@]}"
forbid 'the server log only through src/server/log.rs' \
    '\blog_(debug|verbose|notice|warning|io_error)\b|RedisModule_Log|redis_module::logging' "${outside_log[@]}"

exit "$failed"
