"""Makes django-celery-beat's tables and one row for each periodic task of SCENE,
as an operator does in Django's admin."""

import json
import os

import django

django.setup()

from django.core.management import call_command  # noqa: E402
from django_celery_beat.models import IntervalSchedule, PeriodicTask  # noqa: E402

SCENE = json.loads(os.environ["SCENE"])

call_command("migrate", verbosity=0)
for task, seconds in SCENE["schedule"].items():
    every, _ = IntervalSchedule.objects.get_or_create(
        every=seconds, period=IntervalSchedule.SECONDS
    )
    PeriodicTask.objects.create(
        name=task.rpartition(".")[2],
        task=task,
        interval=every,
        priority=SCENE.get("priority"),
    )
