"""A cache that another program can read, as the page on Redis shows it."""

from __future__ import annotations

from django_redis.serializers.base import BaseSerializer


class TextSerializer(BaseSerializer):
    def dumps(self, value: str) -> bytes:
        return value.encode()

    def loads(self, value: bytes) -> str:
        return value.decode()


def plain_key(key: str, prefix: str, version: int) -> str:
    return key
