#!/usr/bin/env bash
# Checks the files that ship beside the module with the programs that read them: the
# rules and the scrape example with promtool, the Dockerfile with hadolint, the
# workflows with actionlint, shell scripts with shellcheck. What cannot be had here is
# named and left out.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

linters=target/venv/linters
status=0

# run NAME PROGRAM ARGUMENT ...
run() {
    local name=$1
    shift
    if [[ ! -x $1 ]]; then
        echo "contrib: $name left out: no $1"
    elif "$@"; then
        echo "contrib: $name ok"
    else
        echo "contrib: $name FAILED"
        status=1
    fi
}

tests/monitoring.sh
promtool=target/monitoring/promtool
run 'scrape example and rules' $promtool check config contrib/monitoring/prometheus.yml
run 'what the rules say' $promtool test rules contrib/monitoring/rules_test.yml

if [[ ! $linters/.ready -nt tests/requirements-linters.txt ]]; then
    if ! "${PYTHON:-python3}" -m venv "$linters" ||
        ! "$linters/bin/python" -m pip install --quiet --disable-pip-version-check --no-input \
            --only-binary :all: --requirement tests/requirements-linters.txt; then
        echo 'contrib: the linters could not be installed'
    else
        touch "$linters/.ready"
    fi
fi
PATH=$PWD/$linters/bin:$PATH
run Dockerfile "$linters/bin/hadolint" Dockerfile
run "what the Dockerfile's build copies" tests/image.sh --quick
run workflows "$linters/bin/actionlint" .github/workflows/*.yml
run 'workflows, what they let in' "$linters/bin/zizmor" --offline --quiet .github/workflows
run YAML "$linters/bin/yamllint" --strict --config-data \
    '{extends: default, rules: {line-length: disable, document-start: disable, comments: disable, truthy: {check-keys: false}}}' \
    .github/workflows/*.yml contrib/*/*.y*ml
run 'shell scripts' "$linters/bin/shellcheck" --severity warning tests/*.sh .ci/run
exit "$status"
