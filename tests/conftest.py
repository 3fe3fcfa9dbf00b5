"""The servers that the tests need, and what holds for every test."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, connections

from alya_django import status_cache
from alya_django.engine.claim import Claimer
from alya_django.engine.deliver import Deliverer
from alya_django.engine.finish import Finisher
from alya_django.engine.init_blocks import InitBlocks
from alya_django.engine.pace import Pace
from alya_django.engine.record import Recorder
from alya_django.models import database
from alya_django.registry import registry as all_registered
from alya_django.testing import isolated_registry
from tests import services
from tests.hints import pytest_runtest_makereport, pytest_sessionfinish  # noqa: F401 (hooks of pytest)
from tests.local_storage import use_storage
from tests.programs import ServiceFailed

UUIDS = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
ROOT = Path(__file__).resolve().parents[1]
PIPE_BYTES = 2**20
IS_SQLITE = os.environ.get("ALYA_TEST_DATABASE") == "sqlite"


def pytest_configure() -> None:
    """Let Ctrl-C reach the processes that tests start: what was started in the background ignores it, children too."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes long: processes that share the tests then end together."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_make_parametrize_id(val: object) -> str | None:
    """Name a parameter that was made up alike in all processes that share the tests."""
    return UUIDS.sub("uuid", val) if isinstance(val, str) and UUIDS.search(val) else None


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Any:
    """Let processes that share the tests report those too that log what UTF-8 cannot hold."""
    return _encodable((yield))


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {key: _encodable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_encodable, value))
    return value


@pytest.fixture(scope="session")
def postgresql(request: pytest.FixtureRequest) -> Iterator[services.PostgreSQL]:
    """The PostgreSQL of this run; without it hardly a test can run, so that is the end."""
    with ExitStack() as running:
        try:
            server = running.enter_context(services.postgresql())
        except ServiceFailed as failure:
            request.session.shouldfail = f"{failure}"
            raise
        yield server


@pytest.fixture(scope="session")
def _redis() -> Iterator[services.Redis]:
    with services.redis() as server:
        yield server


@pytest.fixture
def redis(_redis: services.Redis) -> Iterator[services.Redis]:
    """The Redis of this run, which a test may stop."""
    _redis.start()
    yield _redis
    _redis.start()


@pytest.fixture(scope="session")
def _s3() -> Iterator[services.S3]:
    with services.s3() as server:
        yield server


@pytest.fixture
def s3(_s3: services.S3) -> Iterator[services.S3]:
    """The S3 server of this run, which a test may stop."""
    _s3.start()
    yield _s3
    _s3.start()


@pytest.fixture(autouse=True)
def _caches_are_trusted() -> Iterator[None]:
    """No test pays for the outage of another's cache."""
    yield
    status_cache.access.forget()


@pytest.fixture(scope="session")
def django_db_modify_db_settings(request: pytest.FixtureRequest) -> None:
    """Tell Django where the server listens."""
    if not IS_SQLITE:
        server: services.PostgreSQL = request.getfixturevalue("postgresql")
        connections.settings["default"].update(HOST=server.host, PORT=server.port)


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: Any) -> None:
    """Number real workers from where no test makes up a number: who ends would give back the other's rows."""
    with django_db_blocker.unblock(), connection.cursor() as cursor:
        if IS_SQLITE:
            cursor.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('alya_workers', 1000)")
        else:
            cursor.execute("ALTER TABLE alya_workers ALTER COLUMN id RESTART WITH 1001")


@pytest.fixture
def registry() -> Iterator[Any]:
    """An empty registry for this test."""
    from alya_django import registry

    with isolated_registry():
        yield registry


@pytest.fixture
def folder(settings: Any, tmp_path: Path) -> Path:
    """An empty folder that the storage is."""
    use_storage(settings, "django.core.files.storage.FileSystemStorage", location=tmp_path / "storage")
    return tmp_path / "storage"


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
        "SECRET_KEY": "tests need no secret",
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
def project_storage(environment: dict[str, str], settings: Any) -> None:
    """Let this process see the storage of the started ones."""
    settings.STORAGES = {
        **settings.STORAGES,
        "default": {
            "BACKEND": "django.core.files.storage.FileSystemStorage",
            "OPTIONS": {"location": environment["STORAGE_DIR"]},
        },
    }


@pytest.fixture
def make_claimer() -> Callable[[int], Claimer]:
    """Make what claims for a worker of a given number, of all that is registered by then."""

    def make(number: int) -> Claimer:
        return Claimer(
            database(),
            number=number,
            name=f"worker-{number}",
            registrations=list(all_registered),
            is_usable=lambda app: True,
            pace=Pace(),
        )

    return make


@pytest.fixture
def make_recorder() -> Callable[[int], Recorder]:
    """Make what records for a worker of a given number."""
    return lambda number: Recorder(database(), number=number, name=f"worker-{number}")


@pytest.fixture
def make_finisher(make_recorder: Callable[[int], Recorder]) -> Callable[[], Finisher]:
    """Make what finishes batches, for a worker that has no init block yet."""
    return lambda: Finisher(database(), make_recorder(1), Deliverer(database(), InitBlocks()))
