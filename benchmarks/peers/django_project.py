"""
The Django project of the peers that are backends of Django's tasks: its settings, and its task.

CONN_MAX_AGE has workers keep their connections: django-ox recommends it, and both connect anew for every task without.
"""

import os
from urllib.parse import urlsplit

from django.tasks import task

SERVER = urlsplit(os.environ["DATABASE_URL"])

SECRET_KEY = "benchmarks need no secret"
USE_TZ = True
INSTALLED_APPS = [os.environ["TASKS_APP"]]
TASKS = {"default": {"BACKEND": os.environ["TASKS_BACKEND"]}}
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": SERVER.hostname,
        "PORT": SERVER.port,
        "NAME": SERVER.path.strip("/"),
        "USER": SERVER.username,
        "CONN_MAX_AGE": 600,
    }
}


@task
def noop(account: str, amount: str, reference: str) -> None:
    """Succeed."""
