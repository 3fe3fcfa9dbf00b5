"""A storage of a test's own, and what lies in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alya_django import batches


def use_storage(settings: Any, backend: str, **options: Any) -> None:
    """Let the default storage be this one."""
    settings.STORAGES = {**settings.STORAGES, "default": {"BACKEND": backend, "OPTIONS": options}}


def files_in(folder: Path) -> set[str]:
    """Return the names of all files below a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def read(batch_id: Any, name: str) -> bytes:
    """Return an output file of a batch."""
    with batches.open_output(batch_id, name) as file:
        return file.read()
