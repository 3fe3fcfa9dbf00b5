"""The servers that the tests need, and what holds for every test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connections

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
