"""`manage.py hygiene`, for a Django project whose settings name CELERY_BROKER_URL.

    manage.py hygiene              what is wrong, in words
    manage.py hygiene --clean      what HYGIENE.FIXTTL would do
    manage.py hygiene --clean --yes

Put this file into an installed app as management/commands/hygiene.py, and
replies.py beside that app or wherever the project finds its modules.
"""

import redis
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from replies import with_dicts

TOLD = ("matched", "already_had_ttl", "stamped", "cut", "deleted", "bytes_freed", "duration_ms")


class Command(BaseCommand):
    help = "Tells how Celery's Redis is, and cleans it"

    def add_arguments(self, parser):
        parser.add_argument("--clean", action="store_true", help="stamp and delete old results")
        parser.add_argument("--yes", action="store_true", help="really; else it is a dry run")

    def handle(self, *_, **options):
        # No timeout: a sweep answers when it is done, and a client that gives up
        # ends it.
        client = redis.Redis.from_url(
            settings.CELERY_BROKER_URL, socket_timeout=None, decode_responses=True
        )
        try:
            if options["clean"]:
                self.clean(with_dicts(client), dry=not options["yes"])
            else:
                self.stdout.write(client.execute_command("HYGIENE.DOCTOR"))
        except redis.RedisError as error:
            raise CommandError(str(error)) from None

    def clean(self, client, dry):
        told = client.execute_command("HYGIENE.FIXTTL", *(["DRYRUN"] if dry else []))
        for name in TOLD:
            self.stdout.write(f"{name:<16} {told[name]}")
        if dry:
            self.stdout.write("Nothing was changed. With --yes it will be.")
