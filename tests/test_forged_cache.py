"""A cache that lies: what is opened, allowed and scoped is as the database has it."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest
from django.core.cache import cache
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage

from alya_django import NotFound, batches, register_batch_processor
from alya_django.testing import drain
from tests.processors import write_lines

# Readers cache what is committed, so these tests commit.
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.sqlite]


@pytest.fixture
def written(registry: Any) -> UUID:
    """A finished batch with one output file."""
    register_batch_processor("bank", "write", write_lines)
    batch_id = batches.submit("bank", "write", [{"a.csv": "x"}])
    drain()
    return batch_id


def forge(batch_id: UUID, part: str, **fields: Any) -> None:
    """Change fields of what is cached of a batch."""
    key = f"ALYA_{{{batch_id}}}_{part}"
    cache.set(key, json.dumps(json.loads(cache.get(key)) | fields))


class OpenOutputTests:
    @pytest.mark.rule("SEC-1")
    def test_opens_nothing_that_the_cache_names(self, written: UUID) -> None:
        """Neither another object under a right name, nor one under a name that the batch does not have."""
        secret = default_storage.save("secret.txt", ContentFile(b"secret"))
        forge(written, "SUMMARY", outputFiles={"a.csv": secret, "b.csv": secret})
        with batches.open_output(written, "a.csv") as file:
            assert file.read() == b"x\n"
        with pytest.raises(NotFound):
            batches.open_output(written, "b.csv")
