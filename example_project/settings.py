"""
Settings of the example project.

With nothing in the environment it is a demo on this machine, with DEBUG on. In production it has SECRET_KEY, which
turns DEBUG off, and ALLOWED_HOSTS, names with commas between them. It is served by HTTPS then.

Database, cache and storage come from the environment too: DATABASE_URL, CACHE_URL (a Redis), and S3_BUCKET with
S3_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or STORAGE_DIR. By default SQLite, files
and a local directory, all under ``var/``.
"""

import os
from pathlib import Path

import dj_database_url
import django
from django.core.exceptions import ImproperlyConfigured

BASE_DIR = Path(__file__).resolve().parent.parent
VAR_DIR = Path(os.environ.get("VAR_DIR", BASE_DIR / "var"))
VAR_DIR.mkdir(parents=True, exist_ok=True)

SECRET_KEY = os.environ.get("SECRET_KEY", "")
# Whoever gives it a key means it: to forget the other variable opens nothing.
DEBUG = os.environ.get("DEBUG", "0" if SECRET_KEY else "1") == "1"
if not SECRET_KEY:
    if not DEBUG:
        raise ImproperlyConfigured("Set SECRET_KEY in the environment, or DEBUG=1 for a demo.")
    SECRET_KEY = "a demo needs no secret"
ALLOWED_HOSTS = os.environ.get("ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]").split(",")

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "alya_django",
    "example_project.bank",
    "example_project.flights",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.csp.ContentSecurityPolicyMiddleware"
    if django.VERSION >= (6,)
    else "example_project.policy.enforce",
    "django.contrib.sessions.middleware.SessionMiddleware",
    # Pages speak the language that the browser asks for, as far as they can.
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
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
ROOT_URLCONF = "example_project.urls"
X_FRAME_OPTIONS = "DENY"
SECURE_CSP = {
    "default-src": ["'self'"],
    "object-src": ["'none'"],
    "base-uri": ["'none'"],
    "form-action": ["'self'"],
    "frame-ancestors": ["'none'"],
}
if not DEBUG:
    # Behind a proxy that ends HTTPS set SECURE_PROXY_SSL_HEADER too, or it is redirected for ever.
    SECURE_SSL_REDIRECT = True
    SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = True
    # An hour can be waited out, should HTTPS fail; lengthen it once it works, for all names below the domain.
    SECURE_HSTS_SECONDS = 3600
    SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = True

LOGIN_URL = "bank:login"
LOGIN_REDIRECT_URL = "bank:statements"

DATABASES = {"default": dj_database_url.config(default=f"sqlite:///{VAR_DIR / 'example.sqlite3'}")}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    # A writer that begins as a reader cannot wait for another writer; WAL lets pages be read meanwhile.
    DATABASES["default"]["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 30,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
    }

# Not in memory: the site shows what a worker has noted, such as how far it has read a file.
CACHES = {"default": {"BACKEND": "django.core.cache.backends.filebased.FileBasedCache", "LOCATION": VAR_DIR / "cache"}}
if "CACHE_URL" in os.environ:
    CACHES["default"] = {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": os.environ["CACHE_URL"],
        # A poll waits no longer than this for a Redis that does not answer.
        "OPTIONS": {"SOCKET_CONNECT_TIMEOUT": 1, "SOCKET_TIMEOUT": 1},
    }

# Not MEDIA_ROOT: no web server serves what lies here. A site with files for everybody gives Alya a storage of its own.
STORAGES = {
    "default": {
        "BACKEND": "django.core.files.storage.FileSystemStorage",
        "OPTIONS": {"location": os.environ.get("STORAGE_DIR", VAR_DIR / "storage")},
    },
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
if "S3_BUCKET" in os.environ:
    from boto3.s3.transfer import TransferConfig
    from botocore.config import Config

    STORAGES["default"] = {
        "BACKEND": "storages.backends.s3.S3Storage",
        "OPTIONS": {
            "bucket_name": os.environ["S3_BUCKET"],
            "endpoint_url": os.environ.get("S3_ENDPOINT_URL"),
            "region_name": os.environ.get("AWS_REGION"),
            # A client's own patience is minutes; what waits for the storage here has a next time.
            "client_config": Config(
                s3={"addressing_style": "path" if "S3_ENDPOINT_URL" in os.environ else "auto"},
                signature_version="s3v4",
                connect_timeout=5,
                read_timeout=20,
                retries={"mode": "standard", "total_max_attempts": 3},
            ),
            # One part of 8 MB after another; threads would hold up to a dozen in memory.
            "transfer_config": TransferConfig(use_threads=False),
        },
    }

USE_TZ = True
TIME_ZONE = "America/New_York"
STATIC_URL = "static/"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "loggers": {
        "alya_django": {"handlers": ["console"], "level": os.environ.get("LOG_LEVEL", "INFO")},
    },
}
