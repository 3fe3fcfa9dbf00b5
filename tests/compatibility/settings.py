"""Projects that differ from the ordinary in one thing each; COMPATIBILITY names it."""

import os
from pathlib import Path

import dj_database_url

CASE = os.environ["COMPATIBILITY"]
VAR_DIR = Path(os.environ["VAR_DIR"])

SECRET_KEY = "tests need no secret"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
ROOT_URLCONF = "tests.compatibility.urls"
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "alya_django",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
STORAGES = {
    "default": {
        "BACKEND": "django.core.files.storage.FileSystemStorage",
        "OPTIONS": {"location": VAR_DIR / "storage"},
    },
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
DATABASES = {"default": dj_database_url.config()}

if CASE == "router":
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": VAR_DIR / "project.sqlite3",
            "OPTIONS": {"transaction_mode": "IMMEDIATE"},
        },
        "alya": DATABASES["default"],
    }
    DATABASE_ROUTERS = ["tests.compatibility.router.AlyaElsewhere"]
elif CASE == "naive times":
    USE_TZ = False
    TIME_ZONE = "America/New_York"
elif CASE == "custom user":
    INSTALLED_APPS = ["tests.compatibility.people", *INSTALLED_APPS]
    AUTH_USER_MODEL = "people.Person"
elif CASE == "no admin":
    INSTALLED_APPS = ["alya_django"]
    MIDDLEWARE = []
elif CASE == "persistent connections":
    DATABASES["default"].update(CONN_MAX_AGE=None, CONN_HEALTH_CHECKS=True)
elif CASE == "connection pool":
    DATABASES["default"]["OPTIONS"] = {"pool": {"min_size": 1, "max_size": 3, "timeout": 10}}
elif CASE == "server-side binding":
    DATABASES["default"]["OPTIONS"] = {"server_side_binding": True}
elif CASE == "another schema of times":
    TIME_ZONE = "Asia/Kolkata"
    LANGUAGE_CODE = "de"
