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
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-input \
    --only-binary :all: --requirement "$requirements"

# Celery 5.2 was made for Python 3.7 to 3.10. It runs on newer ones once two
# things are back that Python has taken away: EntryPoints.get (3.12) and logging's
# _acquireLock (3.13). Only in this environment, and only where they are absent.
if [[ $requirements == *celery-5.2* ]]; then
    site=$("$folder/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    cat >"$site/sitecustomize.py" <<'PY'
import importlib.metadata
import logging
import sys

if sys.version_info >= (3, 12):
    importlib.metadata.EntryPoints.get = (
        lambda self, group, default=(): self.select(group=group) or default
    )
if not hasattr(logging, "_acquireLock"):
    logging._acquireLock = lambda: logging._lock.acquire()
    logging._releaseLock = lambda: logging._lock.release()
PY
fi

# What the tests need at least, so that a broken environment shows here.
"$folder/bin/python" -c 'import celery.bin.celery, kombu.transport.redis'
touch "$folder/.ready"
