#!/usr/bin/env bash
# Builds one Python environment from pinned requirements.
#
# Usage: tests/venv.sh REQUIREMENTS FOLDER
set -euo pipefail

requirements=$1
folder=$2
python=${PYTHON:-python3}

echo "venv: building $folder with $("$python" --version)"
rm -rf "$folder"
"$python" -m venv "$folder"
install() { "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-input "$@"; }

# Celery 4.4's metadata ask for "pytz > dev", which pip reads no more since 24.1.
if [[ $requirements == *celery-4.4* ]]; then install 'pip<24.1'; fi
install --only-binary :all: --requirement "$requirements"

if [[ $requirements == *celery-4.4* || $requirements == *celery-5.2* ]]; then
    site=$("$folder/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    cp "$(dirname "${BASH_SOURCE[0]}")/old_celery.py" "$site/sitecustomize.py"
fi

# What the tests need at least, so that a broken environment shows here.
"$folder/bin/python" -c 'import celery.bin.celery, kombu.transport.redis'
touch "$folder/.ready"
