"""The servers that the tests need, and what holds for every test."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connections

from alya_django.engine.claim import Claimer
from alya_django.engine.finish import Finisher
from alya_django.engine.init_blocks import InitBlocks
from alya_django.engine.pace import Pace
from alya_django.engine.record import Recorder
from alya_django.models import database
from alya_django.registry import registry as all_registered
from alya_django.testing import isolated_registry
from tests import services

IS_SQLITE = os.environ.get("ALYA_TEST_DATABASE") == "sqlite"


@pytest.fixture(scope="session")
def postgresql() -> Iterator[services.PostgreSQL]:
    """The PostgreSQL of this run."""
    try:
        with services.postgresql() as server:
            yield server
    except services.ServiceFailed as failure:
        pytest.exit(f"{failure}", returncode=3)


@pytest.fixture(scope="session")
def django_db_modify_db_settings(request: pytest.FixtureRequest) -> None:
    """Tell Django where the server listens."""
    if not IS_SQLITE:
        server: services.PostgreSQL = request.getfixturevalue("postgresql")
        connections.settings["default"].update(HOST=server.host, PORT=server.port)


@pytest.fixture
def registry() -> Iterator[Any]:
    """An empty registry for this test."""
    from alya_django import registry

    with isolated_registry():
        yield registry


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
    return lambda: Finisher(database(), make_recorder(1), InitBlocks())
