from __future__ import annotations

import logging
import os
from uuid import uuid4

import pytest
from django.core.files.base import ContentFile, File
from django.core.files.storage import default_storage

from alya_django import (
    FormatFailed,
    InvalidState,
    NotFound,
    OutputFormat,
    QueryResult,
    WrongType,
    batches,
    outputs,
    register_batch_processor,
    register_slow_query_processor,
    slow_queries,
)
from alya_django.models import Batch, database
from alya_django.registry import registry as all_registered
from alya_django.testing import drain
from tests.invariants import check_invariants
from tests.local_storage import files_in, read
from tests.processors import write_lines

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.sqlite]

FRAMED = OutputFormat(header=lambda details: f"{details!r}", trailer=lambda totals: f"{totals!r}")


@pytest.fixture
def written(registry, folder):
    """A finished batch with two output files, whose header and trailer tell all they know."""
    register_batch_processor("bank", "write", write_lines, output_formats={"a.csv": FRAMED})
    batch_id = batches.submit("bank", "write", [{"a.csv": f"{n}", "b.csv": "x"} for n in range(5)])
    drain()
    return batch_id


class RebuildOutputTests:
    @pytest.mark.rule("OUT-10")
    def test_makes_the_same_bytes_in_a_new_object(self, written, folder):
        """The old object is gone, the other file is left alone, and every verb names the new one."""
        before, content = batches.output_files(written), read(written, "a.csv")
        rebuilt = batches.rebuild_output(written, "a.csv")
        assert read(written, "a.csv") == content
        assert batches.output_files(written) == {**before, "a.csv": rebuilt}
        assert rebuilt.object_name != before["a.csv"].object_name
        assert (rebuilt.size, rebuilt.checksum) == (before["a.csv"].size, before["a.csv"].checksum)
        assert batches.status(written).output_files["a.csv"] == rebuilt.object_name
        assert files_in(folder) == {rebuilt.object_name, before["b.csv"].object_name}
        check_invariants()

    @pytest.mark.rule("OUT-10")
    def test_brings_back_an_object_that_is_lost(self, written):
        """What the rows have kept is enough."""
        content = read(written, "b.csv")
        default_storage.delete(batches.status(written).output_files["b.csv"])
        with pytest.raises(FileNotFoundError):
            read(written, "b.csv")
        batches.rebuild_output(written, "b.csv")
        assert read(written, "b.csv") == content

    @pytest.mark.rule("OUT-10")
    def test_takes_up_a_format_that_has_changed(self, written, registry, caplog):
        """The new checksum is recorded, and the log tells that it is another."""
        with registry.isolated():
            register_batch_processor("bank", "write", write_lines, output_formats={"a.csv": OutputFormat(header="H")})
            with caplog.at_level(logging.WARNING, "alya_django"):
                batches.rebuild_output(written, "a.csv")
        assert read(written, "a.csv") == b"H\n0\n1\n2\n3\n4\n"
        assert caplog.messages == [
            f"The output file 'a.csv' of {written} is not the same as before: its format has changed."
        ]

    @pytest.mark.rule("OUT-10")
    def test_refuses_what_there_is_not(self, written):
        """A name that no row wrote to, a batch that is none, and a slow query, whose files are its processor's."""
        with pytest.raises(NotFound, match=rf"^The batch {written} has no output file 'c\.csv'\.$"):
            batches.rebuild_output(written, "c.csv")
        with pytest.raises(NotFound):
            batches.rebuild_output(uuid4(), "a.csv")
        with pytest.raises(WrongType):
            batches.rebuild_output(slow_queries.submit("bank", "ask", 1), "a.csv")

    @pytest.mark.rule("OUT-10")
    def test_refuses_a_batch_that_has_not_ended(self, registry):
        """Its files are still to be made."""
        batch_id = batches.submit("bank", "write", [1])
        with pytest.raises(InvalidState, match=rf"^The batch {batch_id} has not ended\.$"):
            batches.rebuild_output(batch_id, "a.csv")

    @pytest.mark.rule("OUT-10")
    def test_refuses_where_the_format_is_unknown(self, written):
        """Without the processor nobody knows what stands around the lines."""
        with (
            all_registered.isolated(),
            pytest.raises(InvalidState, match=rf"^The batch {written} is of an op that is not registered here\.$"),
        ):
            batches.rebuild_output(written, "a.csv")

    @pytest.mark.rule("OUT-10")
    def test_refuses_while_another_is_at_it(self, written, folder, monkeypatch):
        """One at a time; the second changes nothing."""
        refused = []

        def save_and_ask(*arguments):
            with pytest.raises(InvalidState, match="is being worked on by somebody else") as caught:
                batches.rebuild_output(written, "b.csv")
            refused.append(str(caught.value))
            return save(*arguments)

        save = outputs.save
        monkeypatch.setattr(outputs, "save", save_and_ask)
        batches.rebuild_output(written, "a.csv")
        assert refused == [f"The batch {written} is being worked on by somebody else."]
        assert files_in(folder) == set(batches.status(written).output_files.values())

    @pytest.mark.rule("OUT-10")
    def test_gives_up_when_it_was_taken_over(self, written, folder, monkeypatch):
        """Who took longer than its lease leaves the file to the other, and nothing in the storage."""
        before = batches.output_files(written)

        def save_late(*arguments):
            Batch.objects.update(finisher=uuid4())
            return save(*arguments)

        save = outputs.save
        monkeypatch.setattr(outputs, "save", save_late)
        with pytest.raises(InvalidState, match=r"was taken over by somebody else\.$"):
            batches.rebuild_output(written, "a.csv")
        assert batches.output_files(written) == before
        assert files_in(folder) == {file.object_name for file in before.values()}

    @pytest.mark.rule("OUT-10")
    def test_leaves_all_as_it_was_when_the_format_raises(self, written, registry, folder):
        """The file that there is stays, and the next may try at once."""
        with registry.isolated():
            register_batch_processor(
                "bank", "write", write_lines, output_formats={"a.csv": OutputFormat(header=lambda details: 1 / 0)}
            )
            with pytest.raises(FormatFailed):
                batches.rebuild_output(written, "a.csv")
        assert files_in(folder) == set(batches.status(written).output_files.values())
        batches.rebuild_output(written, "a.csv")

    @pytest.mark.rule("API-7")
    def test_leaves_the_old_object_to_a_transaction_that_is_rolled_back(self, written):
        """Until the commit it is still named, so it is still there."""
        content = read(written, "a.csv")

        def rebuild_and_fail() -> None:
            with database().transaction():
                batches.rebuild_output(written, "a.csv")
                raise LookupError

        with pytest.raises(LookupError):
            rebuild_and_fail()
        assert read(written, "a.csv") == content


class OpenOutputTests:
    @pytest.mark.rule("OUT-10")
    def test_finds_a_file_that_is_rebuilt_meanwhile(self, written, monkeypatch):
        """The object may go between the look at its name and the opening: the name is looked up once more."""
        open_object = outputs.open

        def rebuild_and_open(name):
            monkeypatch.setattr(outputs, "open", open_object)
            batches.rebuild_output(written, "a.csv")
            return open_object(name)

        monkeypatch.setattr(outputs, "open", rebuild_and_open)
        assert read(written, "a.csv")


class OutputFilesTests:
    @pytest.mark.rule("OUT-9")
    def test_are_measured_also_for_a_slow_query(self, registry):
        """A file is measured as it is saved; of an object that the processor names nothing is known."""
        files = {"text.txt": ContentFile("ü"), "bytes.csv": ContentFile(b"abc"), "old.pdf": "reports/old.pdf"}
        register_slow_query_processor("bank", "ask", lambda row: QueryResult.success(output_files=files))
        query_id = slow_queries.submit("bank", "ask", 1)
        assert slow_queries.output_files(query_id) == {}
        drain()
        made = slow_queries.output_files(query_id)
        assert {name: (file.size, file.content_type, file.is_own) for name, file in made.items()} == {
            "text.txt": (2, "text/plain", True),
            "bytes.csv": (3, "text/csv", True),
            "old.pdf": (None, "application/pdf", False),
        }
        assert made["bytes.csv"].checksum == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        assert (made["old.pdf"].object_name, made["old.pdf"].checksum) == ("reports/old.pdf", "")

    @pytest.mark.rule("OUT-9")
    def test_may_come_from_what_can_be_read_once(self, registry, folder):
        """A pipe is spooled, so that it can be measured and saved."""
        reader, writer = os.pipe()
        with open(writer, "wb") as pipe:
            pipe.write(b"from a pipe")
        with open(reader, "rb") as pipe:
            file = outputs.save_given(uuid4(), uuid4(), "a.txt", File(pipe, "pipe"))
        assert (file.size, (folder / file.object_name).read_bytes()) == (11, b"from a pipe")
