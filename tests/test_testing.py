from __future__ import annotations

import pytest
from django.test import TestCase

from alya_django import RowFailed, Status, batches, register_batch_processor, registry
from alya_django.testing import drain, isolated_registry
from tests.processors import broken, echo


@pytest.mark.django_db
@pytest.mark.sqlite
@pytest.mark.usefixtures("registry")
class DrainTests:
    def test_raises_what_a_processor_raised_when_all_is_done(self) -> None:
        """The exception comes after the row was recorded and the batch finished."""
        register_batch_processor("app", "op", broken)
        batch_id = batches.submit("app", "op", [1, 2])
        with pytest.raises(ZeroDivisionError, match="division by zero"):
            drain()
        assert batches.status(batch_id).nfailed == 2

    def test_leaves_the_exception_to_the_messages_when_told(self) -> None:
        """With raise_errors=False the project sees what it will see in production."""
        register_batch_processor("app", "op", broken)
        batches.submit("app", "op", [1, 2])
        assert drain(raise_errors=False) == 2

    def test_a_row_failed_on_purpose_is_no_error(self) -> None:
        """RowFailed is not raised again."""

        def refuse(row: object) -> None:
            raise RowFailed("no")

        register_batch_processor("app", "op", refuse)
        batches.submit("app", "op", [1])
        assert drain() == 1


@pytest.mark.sqlite
class DrainInsideTests(TestCase):
    @isolated_registry()
    def test_works_inside_a_test_case(self) -> None:
        """The whole way of a batch fits into Django's TestCase, on its connection and in its transaction."""
        register_batch_processor("app", "op", echo)
        batch_id = batches.submit("app", "op", [1])
        assert drain() == 1
        assert batches.status(batch_id).status is Status.SUCCESS


class IsolatedRegistryTests:
    def test_is_empty_inside_and_as_before_afterwards(self) -> None:
        """What is registered inside is gone outside, and the reverse."""
        before = list(registry)
        with isolated_registry():
            assert list(registry) == []
            register_batch_processor("app", "op", echo)
            assert ("app", "op") in registry
        assert list(registry) == before
        assert ("app", "op") not in registry
