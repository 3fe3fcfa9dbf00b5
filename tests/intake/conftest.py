from __future__ import annotations

import pytest
from django.core.files.storage import FileSystemStorage


@pytest.fixture
def use_storage(settings, tmp_path):
    """Let the storage be of another class, in the same place."""

    def use(storage_class):
        backend = {"BACKEND": f"{storage_class.__module__}.{storage_class.__qualname__}"}
        settings.STORAGES = {**settings.STORAGES, "default": {**backend, "OPTIONS": {"location": tmp_path}}}

    return use


@pytest.fixture
def storage(use_storage, tmp_path):
    """An empty storage for this test, and where it lies."""
    use_storage(FileSystemStorage)
    return tmp_path
