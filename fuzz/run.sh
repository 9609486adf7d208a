#!/usr/bin/env bash
# Runs the fuzz targets one after the other, each from the seeds that are committed
# and from what earlier runs have found (fuzz/corpus), and prints how often each was
# executed. Exits non-zero at the first finding; fuzz/artifacts holds its input.
#
# Usage: fuzz/run.sh [SECONDS [TARGET ...]]      (default: 10 s each, all targets)
# FUZZ_FLAGS are cargo-fuzz's, such as "--sanitizer none".
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

seconds=${1:-10}
shift || true
targets=("$@")
((${#targets[@]})) || mapfile -t targets < <(cargo +nightly fuzz list)

# A slower input or a larger piece of memory is a finding. The readers' own bounds on
# size, of 64 KiB and more, are held by unit tests: inputs that long are slow to try.
limits=(-timeout=2 -rss_limit_mb=1024 -malloc_limit_mb=64 -max_len=16384 -print_final_stats=1)

read -ra flags <<<"${FUZZ_FLAGS:-}"
cargo +nightly fuzz build "${flags[@]}"
failed=0
for target in "${targets[@]}"; do
    corpus=fuzz/corpus/$target seeds=fuzz/seeds/$target log=fuzz/target/$target.log
    mkdir -p "$corpus" "$seeds"
    case $target in
    arguments | settings) dict=(-dict=fuzz/dictionaries/arguments) ;;
    glob | class | binding | clients) dict=() ;;
    *) dict=(-dict=fuzz/dictionaries/json) ;;
    esac
    if cargo +nightly fuzz run "${flags[@]}" "$target" "$corpus" "$seeds" -- \
        "${limits[@]}" "${dict[@]}" -max_total_time="$seconds" >"$log" 2>&1; then
        verdict=ok
    else
        verdict=FINDING failed=1
    fi
    runs=$(grep -oP 'stat::number_of_executed_units:\s*\K\d+' "$log" || echo 0)
    printf 'fuzz: %-10s %-8s %12d runs, %s\n' "$target" "$verdict" "$runs" "$log"
    ((failed == 0)) || { tail -n 40 "$log"; exit 1; }
done
