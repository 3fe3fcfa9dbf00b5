"""A cache that lies to the verbs: what is opened is as the database has it, and nothing fails."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from django.core.cache import cache
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage

from alya_django import (
    NotFound,
    QueryResult,
    Status,
    batches,
    register_batch_processor,
    register_slow_query_processor,
    slow_queries,
)
from alya_django.testing import drain
from tests.forgeries import SECRET, forgeries, key
from tests.processors import write_lines

# Readers cache what is committed, so these tests commit.
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.sqlite]


@pytest.fixture(autouse=True)
def _empty_cache() -> Iterator[None]:
    cache.clear()
    yield
    cache.clear()


@pytest.fixture
def written(registry: Any) -> UUID:
    """A finished batch with one output file, which is cached."""
    default_storage.save(SECRET, ContentFile(b"secret"))
    register_batch_processor("bank", "write", write_lines)
    batch_id = batches.submit("bank", "write", [{"a.csv": "x"}])
    drain()
    return batch_id


@pytest.fixture
def answered(registry: Any) -> UUID:
    """A slow query with an answer and a file, which are cached."""
    files = {"report": ContentFile(b"x")}
    register_slow_query_processor("bank", "ask", lambda row: QueryResult.success({"n": 1}, output_files=files))
    query_id = slow_queries.submit("bank", "ask", 1)
    drain()
    return query_id


def content(verbs: Any, batch_id: UUID, name: str) -> bytes:
    with verbs.open_output(batch_id, name) as file:
        return bytes(file.read())


class VerbTests:
    @pytest.mark.rule("SEC-1", "SEC-2")
    @pytest.mark.parametrize("part", ["STATUS", "SUMMARY"])
    def test_of_a_batch_believe_nothing(self, written: UUID, part: str) -> None:
        """Whatever stands there, the status is shown, the rows and the file are the batch's own."""
        right = batches.result(written)
        for title in forgeries(written, part):
            assert isinstance(batches.status(written).status, Status), title
            assert batches.result(written) == right, title
            assert content(batches, written, "a.csv") == b"x\n", title
            with pytest.raises(NotFound):
                batches.open_output(written, "b.csv")

    @pytest.mark.rule("SEC-1", "SEC-2")
    @pytest.mark.parametrize("part", ["STATUS", "SUMMARY", "RESULT", "OUTFILES"])
    def test_of_a_slow_query_believe_nothing(self, answered: UUID, part: str) -> None:
        """An answer is shown that any program can write again, and the file is the query's own."""
        for title in forgeries(answered, part):
            answer = slow_queries.result(answered)
            assert json.dumps([answer.result, dict(answer.output_files)], allow_nan=False).isascii(), title
            assert isinstance(slow_queries.status(answered).status, Status), title
            assert content(slow_queries, answered, "report") == b"x", title
            with pytest.raises(NotFound):
                slow_queries.open_output(answered, "b.csv")

    @pytest.mark.rule("SEC-1", "SEC-2")
    def test_are_not_misled_by_another_batch(self, written: UUID) -> None:
        """All that is cached of one batch, under the keys of another that has not ended."""
        other_id = batches.submit("bank", "write", [{"a.csv": "y"}] * 2)
        batches.status(written)
        for part in ("STATUS", "SUMMARY"):
            cache.set(key(other_id, part), cache.get(key(written, part)))
        assert batches.result(other_id).try_later
        with pytest.raises(NotFound):
            batches.open_output(other_id, "a.csv")
        drain()
        assert content(batches, other_id, "a.csv") == b"y\ny\n"
