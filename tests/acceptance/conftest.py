from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.db import connection

ROOT = Path(__file__).resolve().parents[2]
PIPE_BYTES = 2**20


@pytest.fixture
def environment(transactional_db: None, tmp_path: Path) -> dict[str, str]:
    """The environment of a process of the project, on this test's database and a storage of its own."""
    name = connection.settings_dict
    url = f"postgresql://{name['USER']}@{name['HOST']}:{name['PORT']}/{name['NAME']}"
    if connection.vendor == "sqlite":
        url = f"sqlite:///{name['NAME']}"
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.acceptance.settings",
        "DATABASE_URL": url,
        "VAR_DIR": str(tmp_path),
        "STORAGE_DIR": str(tmp_path / "storage"),
    }


@pytest.fixture
def manage(environment: dict[str, str]) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start ``manage.py`` commands; what still runs at the end of the test is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # Nobody reads before the end: what does not fit would block the process.
            pipesize=PIPE_BYTES,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def project_storage(environment: dict[str, str], settings) -> None:
    """Let this process see the storage of the started ones."""
    settings.STORAGES = {
        **settings.STORAGES,
        "default": {
            "BACKEND": "django.core.files.storage.FileSystemStorage",
            "OPTIONS": {"location": environment["STORAGE_DIR"]},
        },
    }
