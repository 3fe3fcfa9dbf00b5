from __future__ import annotations

import pytest


@pytest.fixture
def storage(settings, tmp_path):
    """An empty storage for this test."""
    backend = {"BACKEND": "django.core.files.storage.FileSystemStorage"}
    settings.STORAGES = {**settings.STORAGES, "default": {**backend, "OPTIONS": {"location": tmp_path / "storage"}}}
