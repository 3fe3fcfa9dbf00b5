"""Settings of the benchmarks: what the harness sets in the environment, the rest is Django's default."""

import json
import os

import dj_database_url

ALYA = json.loads(os.environ.get("ALYA", "{}"))
SECRET_KEY = "benchmarks need no secret"
USE_TZ = True
INSTALLED_APPS = ["alya_django", "benchmarks", *json.loads(os.environ.get("BENCHMARKS_APPS", "[]"))]
DATABASES = {"default": dj_database_url.config()}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
STORAGES = {
    "default": {
        "BACKEND": "django.core.files.storage.FileSystemStorage",
        "OPTIONS": {"location": os.environ["STORAGE_DIR"]},
    },
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
