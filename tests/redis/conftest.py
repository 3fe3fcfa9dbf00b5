from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.core.cache import caches

from tests import services

SECONDS = 1

BACKENDS: dict[str, Callable[[str], dict[str, Any]]] = {
    "django-redis": lambda url: {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": url,
        "OPTIONS": {"SOCKET_CONNECT_TIMEOUT": SECONDS, "SOCKET_TIMEOUT": SECONDS},
    },
    "django-redis, json": lambda url: {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": url,
        "OPTIONS": {
            "SERIALIZER": "django_redis.serializers.json.JSONSerializer",
            "COMPRESSOR": "django_redis.compressors.zlib.ZlibCompressor",
        },
    },
    "django-redis, ignoring": lambda url: {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": url,
        "OPTIONS": {"SOCKET_CONNECT_TIMEOUT": SECONDS, "SOCKET_TIMEOUT": SECONDS, "IGNORE_EXCEPTIONS": True},
    },
    "redis": lambda url: {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": url,
        "OPTIONS": {"socket_connect_timeout": SECONDS, "socket_timeout": SECONDS},
    },
    "locmem": lambda url: {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": url},
    "dummy": lambda url: {"BACKEND": "django.core.cache.backends.dummy.DummyCache"},
}
"""Caches that a project may have, each made of the Redis's URL."""


@pytest.fixture
def use_backend(redis: services.Redis, settings: Any) -> Callable[[str], Any]:
    """Use one of the BACKENDS from here on, empty."""

    def use(name: str) -> Any:
        settings.CACHES = {"default": BACKENDS[name](redis.url)}
        caches["default"].clear()
        return caches["default"]

    return use


@pytest.fixture
def cache(use_backend: Callable[[str], Any]) -> Any:
    """The cache of this test: a Redis through django-redis."""
    return use_backend("django-redis")


@pytest.fixture
def client(cache: Any) -> Any:
    """A client of the Redis beside the cache."""
    return cache.client.get_client()
