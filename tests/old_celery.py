"""Gives back what Python has taken away since Celery 4.4 and 5.2 were made (for
Python 3.5 to 3.8 and 3.7 to 3.10), and only where it is absent.

tests/venv.sh puts it into those environments as sitecustomize.py.
"""

import importlib.metadata
import inspect
import logging
import sys

if sys.version_info >= (3, 12):
    importlib.metadata.EntryPoints.get = (
        lambda self, group, default=(): self.select(group=group) or default
    )
# Gone in 3.13.
if not hasattr(logging, "_acquireLock"):
    logging._acquireLock = lambda: logging._lock.acquire()
    logging._releaseLock = lambda: logging._lock.release()
# Gone in 3.11. vine 1.3, which Celery 4.4 asks for, imports the name; only
# Celery's Sphinx extension calls it.
if not hasattr(inspect, "formatargspec"):
    inspect.formatargspec = None
