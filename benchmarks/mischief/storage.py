"""A storage that can be taken away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.files.storage import FileSystemStorage

AWAY = "away"


class ShakyStorage(FileSystemStorage):
    """A directory that takes nothing while it has a file ``away``."""

    def _save(self, name: str, content: Any) -> str:
        if Path(self.location, AWAY).exists():
            raise OSError("The storage is away.")
        return super()._save(name, content)  # type: ignore[misc]
