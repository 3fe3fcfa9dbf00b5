from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from django.core.files.storage import Storage, default_storage

from tests import services

PATIENCE = Config(
    s3={"addressing_style": "path"},
    signature_version="s3v4",
    connect_timeout=2,
    read_timeout=10,
    retries={"mode": "standard", "total_max_attempts": 2},
)


class Bucket:
    """What lies in the part of the bucket that is this test's, seen without a storage."""

    def __init__(self, server: services.S3, location: str) -> None:
        self.server = server
        self.location = location

    def objects(self) -> dict[str, int]:
        """Return the size of each object, by its name below the location."""
        pages = (
            self._client()
            .get_paginator("list_objects_v2")
            .paginate(Bucket=self.server.bucket, Prefix=f"{self.location}/")
        )
        found = [entry for page in pages for entry in page.get("Contents", ())]
        return {entry["Key"].removeprefix(f"{self.location}/"): entry["Size"] for entry in found}

    def head(self, name: str) -> dict[str, Any]:
        return self._client().head_object(Bucket=self.server.bucket, Key=f"{self.location}/{name}")

    def put(self, name: str, content: bytes) -> None:
        self._client().put_object(Bucket=self.server.bucket, Key=f"{self.location}/{name}", Body=content)

    def _client(self) -> Any:
        return self.server.client()


@pytest.fixture
def bucket(s3: services.S3) -> Bucket:
    """The part of the bucket that is this test's."""
    return Bucket(s3, f"test/{uuid4().hex}")


@pytest.fixture
def use_storage(bucket: Bucket, settings: Any) -> Callable[..., None]:
    """Let the storage be this test's part of the bucket, with options as given."""

    def use(**options: Any) -> None:
        base = {
            **bucket.server.options,
            "location": bucket.location,
            "client_config": PATIENCE,
            "transfer_config": TransferConfig(use_threads=False),
        }
        backend = {"BACKEND": "storages.backends.s3.S3Storage", "OPTIONS": {**base, **options}}
        settings.STORAGES = {**settings.STORAGES, "default": backend}

    return use


@pytest.fixture
def storage(use_storage: Callable[..., None]) -> Storage:
    """An S3Storage as a project has it."""
    use_storage()
    return default_storage
