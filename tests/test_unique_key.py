from __future__ import annotations

import pytest
from django.db import transaction

from alya_django import InvalidInput, batches, slow_queries
from alya_django.models import Batch, BatchRow

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite]


class UniqueKeyTests:
    @pytest.mark.rule("SUB-10")
    def test_met_again_returns_the_earlier_batch(self) -> None:
        """The second submit stores nothing, and does not even read its rows."""
        first = batches.submit("app", "op", [1, 2], unique_key="2026-11-24")

        def rows():
            raise AssertionError("was read")
            yield

        assert batches.submit("App", "OP", rows(), unique_key="2026-11-24") == first
        assert Batch.objects.count() == 1
        assert BatchRow.objects.count() == 2

    @pytest.mark.rule("SUB-10")
    def test_met_again_returns_the_earlier_slow_query(self) -> None:
        """Slow queries likewise."""
        first = slow_queries.submit("app", "op", {}, unique_key="k")
        assert slow_queries.submit("app", "op", {"other": 1}, unique_key="k") == first
        assert BatchRow.objects.count() == 1

    @pytest.mark.rule("SUB-10")
    def test_leaves_the_callers_transaction_usable(self) -> None:
        """The refusal of the database stays inside."""
        with transaction.atomic():
            first = batches.submit("app", "op", [1], unique_key="k")
            assert batches.submit("app", "op", [1], unique_key="k") == first
            assert Batch.objects.count() == 1

    @pytest.mark.rule("SUB-10")
    def test_is_of_its_app_and_op(self) -> None:
        """The same key elsewhere is another."""
        ids = {batches.submit(app, op, [1], unique_key="k") for app in "ab" for op in "xy"}
        assert len(ids) == 4

    def test_none_is_no_key(self) -> None:
        """Without a key every submit is new."""
        assert batches.submit("app", "op", [1]) != batches.submit("app", "op", [1])

    def test_is_free_again_after_a_submit_that_failed(self) -> None:
        """A refused submit leaves no key behind."""
        with pytest.raises(InvalidInput):
            batches.submit("app", "op", [], unique_key="k")
        batches.submit("app", "op", [1], unique_key="k")
        assert Batch.objects.get().nrows == 1

    @pytest.mark.rule("SUB-10")
    def test_of_the_other_kind_is_refused(self) -> None:
        """A batch cannot answer for a slow query."""
        batches.submit("app", "op", [1], unique_key="k")
        with pytest.raises(InvalidInput) as raised:
            slow_queries.submit("app", "op", {}, unique_key="k")
        assert str(raised.value) == "unique_key: 'k' is the key of a batch already."
        assert raised.value.field == "unique_key"

    @pytest.mark.parametrize(
        ("key", "message"),
        [
            ("", "unique_key: is empty; None is no key."),
            ("x" * 256, "unique_key: has 256 characters, the limit is 255."),
            ("a\0b", "unique_key: has a NUL character."),
            (5, "unique_key: must be a string, not int."),
        ],
    )
    def test_refuses_what_is_no_key(self, key, message) -> None:
        """A key is a text that can be stored."""
        with pytest.raises(InvalidInput) as raised:
            batches.submit("app", "op", [1], unique_key=key)
        assert str(raised.value) == message
        with pytest.raises(InvalidInput):
            slow_queries.submit("app", "op", 1, unique_key=key)
