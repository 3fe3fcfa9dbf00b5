"""Who looks at the pages, and what they have to show."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client

from alya_django import batches, register_batch_processor
from alya_django.testing import drain
from tests.processors import fail_odd


@pytest.fixture
def staff_client(db: None) -> Callable[..., Client]:
    """Make a client for somebody on the staff who has only the named permissions."""

    def make(*codenames: str) -> Client:
        user = User.objects.create_user("viewer", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
        client = Client()
        client.force_login(user)
        return client

    return make


@pytest.fixture
def ended(registry: Any, db: None) -> UUID:
    """A batch of ten rows, of which the five with odd lines failed."""
    register_batch_processor("bank", "transfer", fail_odd)
    batch_id = batches.submit("bank", "transfer", [{"amount": n} for n in range(10)], requested_by="asha")
    drain()
    return batch_id
