"""Django's settings for django-celery-beat: nothing but its tables, in SQLite."""

import os

SECRET_KEY = "of a throw-away project"
INSTALLED_APPS = ["django_celery_beat"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ["BEAT_DATABASE"],
        # Two beats may write at once.
        "OPTIONS": {"timeout": 20},
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = True
TIME_ZONE = "UTC"
