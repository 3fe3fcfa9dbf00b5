"""Settings of the benchmarks: DATABASE_URL and STORAGE_DIR come from the harness, the rest is Django's default."""

import os

import dj_database_url

SECRET_KEY = "benchmarks need no secret"
USE_TZ = True
INSTALLED_APPS = ["alya_django", "benchmarks"]
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
