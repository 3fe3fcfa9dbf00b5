from __future__ import annotations

import pytest

from alya_django import NotFound, batches, register_batch_processor
from alya_django.testing import drain
from tests.invariants import check_invariants
from tests.processors import write_lines

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite]


class OpenOutputTests:
    @pytest.mark.rule("OUT-5")
    def test_opens_a_file_of_a_finished_batch(self, registry):
        """The file can be read by its logical name."""
        register_batch_processor("bank", "write", write_lines)
        batch_id = batches.submit("bank", "write", [{"a.csv": "x"}, {"a.csv": "ü"}])
        drain()
        with batches.open_output(batch_id, "a.csv") as file:
            assert file.read() == "x\nü\n".encode()
        check_invariants()

    @pytest.mark.rule("API-2")
    def test_says_that_there_is_no_such_file(self, registry):
        """A name that no row contributed to is not found, nor is a file of an unfinished batch."""
        register_batch_processor("bank", "write", write_lines)
        batch_id = batches.submit("bank", "write", [{"a.csv": "x"}])
        for name in ("a.csv", "b.csv", "", "../a.csv"):
            with pytest.raises(NotFound) as caught:
                batches.open_output(batch_id, name)
            assert str(caught.value) == f"The batch {batch_id} has no output file {name!r}."
        drain()
        with pytest.raises(NotFound) as caught:
            batches.open_output(batch_id, "b.csv")
        assert str(caught.value) == f"The batch {batch_id} has no output file 'b.csv'."
