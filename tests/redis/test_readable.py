from __future__ import annotations

from typing import Any

import pytest
import redis as redis_client

from alya_django import batches, register_batch_processor, status_cache
from alya_django.testing import drain
from tests import services
from tests.processors import echo

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("registry")]


@pytest.mark.rule("SEC-7")
def test_another_program_reads_a_state(redis: services.Redis, settings: Any) -> None:
    """With the key and the serializer that the page on Redis shows, a plain GET returns the word; so does Alya."""
    settings.CACHES = {
        "default": {
            "BACKEND": "django_redis.cache.RedisCache",
            "LOCATION": redis.url,
            "KEY_FUNCTION": "tests.redis.readable.plain_key",
            "OPTIONS": {"SERIALIZER": "tests.redis.readable.TextSerializer"},
        }
    }
    register_batch_processor("bank", "transfer", echo)
    batch_id = batches.submit("bank", "transfer", [1])
    drain()
    other = redis_client.Redis.from_url(redis.url)
    other.flushdb()
    summary = batches.status(batch_id)
    assert other.get(status_cache.status_key(batch_id)) == b"success"
    assert status_cache.load(batch_id) == summary
    other.set(status_cache.status_key(batch_id), b"\xff\x00")
    other.set(status_cache.status_key(batch_id).replace("STATUS", "SUMMARY"), b"\xff\x00")
    assert batches.status(batch_id) == summary
