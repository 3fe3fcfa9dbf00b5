"""``manage.py demo_user``: a superuser for a demo site, with a password that everybody knows."""

from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError

USERNAME = PASSWORD = "demo"
LOCAL_HOSTS = {"localhost", "127.0.0.1", "[::1]"}


class Command(BaseCommand):
    help = (
        f"Makes the superuser {USERNAME!r} with the password {PASSWORD!r}, on a site that only this machine can reach."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        if not set(settings.ALLOWED_HOSTS) <= LOCAL_HOSTS:
            raise CommandError(
                "ALLOWED_HOSTS has more than this machine: no place for a password that everybody knows."
            )
        user, is_new = get_user_model().objects.get_or_create(
            username=USERNAME, defaults={"is_staff": True, "is_superuser": True}
        )
        # Setting the same password again would end the sessions that are open.
        if is_new or not user.check_password(PASSWORD):
            user.set_password(PASSWORD)
            user.save()
        self.stdout.write(f"User {USERNAME}, password {PASSWORD}.")
