from __future__ import annotations

import hashlib
import tracemalloc
from uuid import UUID, uuid4

import pytest
from django.core.files.storage import InMemoryStorage

from alya_django import FormatFailed, OutputFormat, batches, join, register_batch_processor
from alya_django.models import Batch
from alya_django.output_formats import Frame
from alya_django.testing import drain
from tests.local_storage import files_in, use_storage
from tests.processors import write_lines

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite]


class ChunkCountingStorage(InMemoryStorage):
    """A storage that keeps the size of the largest piece it was handed."""

    largest = 0

    def _save(self, name, content):
        for piece in content.chunks():
            type(self).largest = max(self.largest, len(piece))
        return super()._save(name, content)


class JoinerTests:
    @pytest.mark.rule("OUT-1", "OUT-3")
    def test_joins_texts_in_the_order_given(self, folder):
        """Each text follows the one before, across calls, each file for itself."""
        with join.Joiner(uuid4(), uuid4()) as joiner:
            joiner.add([{"a": "1", "b": "x"}, {"a": "2\n"}])
            joiner.add([])
            joiner.add([{"b": "y"}, {}, {"a": "3", "b": "", "c": ""}])
            files = joiner.save(lambda size: None)
        assert {name: (folder / file.object_name).read_bytes() for name, file in files.items()} == {
            "a": b"1\n2\n3\n",
            "b": b"x\ny\n",
        }

    def test_calls_back_before_each_file(self, folder):
        """Whoever saves many files can renew a lease meanwhile, for as long as the next one is large."""
        seen = []
        with join.Joiner(uuid4(), uuid4()) as joiner:
            joiner.add([{f"{number}.csv": "x" * number for number in range(1, 5)}])
            joiner.save(lambda size: seen.append((len(files_in(folder)), size)))
        assert seen == [(0, 2), (1, 3), (2, 4), (3, 5)]

    def test_keeps_more_files_than_can_be_open(self, folder):
        """More than a thousand files are joined side by side."""
        with join.Joiner(uuid4(), uuid4()) as joiner:
            for _ in range(2):
                joiner.add([{f"{number}.csv": "x"} for number in range(1_100)])
            assert len(joiner.save(lambda size: None)) == 1_100

    def test_leaves_no_spool(self, folder, monkeypatch, tmp_path):
        """The temporary files are gone afterwards, also after an error."""
        spool = tmp_path / "spool"
        spool.mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(spool))

        def fail_inside():
            with join.Joiner(uuid4(), uuid4()) as joiner:
                joiner.add([{"a": "1"}])
                assert list(spool.iterdir())
                raise LookupError

        with pytest.raises(LookupError):
            fail_inside()
        assert list(spool.iterdir()) == []

    @pytest.mark.rule("OUT-6")
    def test_needs_no_more_memory_for_more_rows(self, folder):
        """A file of 40 MB is joined and saved in a few."""
        blocks, text = 200, "x" * 2_000
        tracemalloc.start()
        try:
            with join.Joiner(uuid4(), uuid4()) as joiner:
                for _ in range(blocks):
                    joiner.add({"a.csv": text} for _ in range(100))
                (file,) = joiner.save(lambda size: None).values()
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert (folder / file.object_name).stat().st_size == blocks * 100 * 2_001
        assert peak < 4_000_000

    @pytest.mark.rule("OUT-6")
    def test_hands_the_storage_pieces(self, settings):
        """A storage gets a file to read, never its whole content."""
        use_storage(settings, f"{__name__}.ChunkCountingStorage")
        ChunkCountingStorage.largest = 0
        with join.Joiner(uuid4(), uuid4()) as joiner:
            joiner.add([{"a.csv": "x" * 1_000_000}])
            joiner.save(lambda size: None)
        assert 0 < ChunkCountingStorage.largest <= 65_536

    @pytest.mark.rule("OUT-9")
    def test_measures_the_files(self, folder):
        """Size and SHA-256 are those of the bytes that were saved; the type follows from the name."""
        with join.Joiner(uuid4(), uuid4()) as joiner:
            joiner.add([{"ü.csv": "späte Flüge", "b": "x"}])
            joiner.add([{"ü.csv": "zwei\n"}])
            files = joiner.save(lambda size: None)
        for file in files.values():
            content = (folder / file.object_name).read_bytes()
            assert (file.size, file.checksum) == (len(content), hashlib.sha256(content).hexdigest())
            assert file.is_own
        assert [file.content_type for file in files.values()] == ["text/csv", "application/octet-stream"]

    @pytest.mark.rule("OUT-7", "OUT-9")
    def test_puts_header_and_trailer_around_the_lines(self, folder):
        """Both end in a newline, belong to the bytes that are measured, and go around each file for itself."""
        details = Batch(app="app", op="op", kind="B", status="inprog").details(slots=())
        form = OutputFormat(header="H", trailer=lambda totals: f"T,{totals.rows}\n", content_type="text/x-bank")
        with join.Joiner(uuid4(), uuid4(), lambda name: Frame(form, details)) as joiner:
            joiner.add([{"a": "1", "b": "2"}])
            joiner.add([{"a": "3"}])
            files = joiner.save(lambda size: None)
        contents = {name: (folder / file.object_name).read_bytes() for name, file in files.items()}
        assert contents == {"a": b"H\n1\n3\nT,2\n", "b": b"H\n2\nT,1\n"}
        assert files["a"].checksum == hashlib.sha256(contents["a"]).hexdigest()
        assert files["a"].content_type == "text/x-bank"


class JoinTests:
    @pytest.fixture
    def written(self, registry) -> UUID:
        """A batch whose rows have written to two files."""
        register_batch_processor("bank", "write", write_lines)
        batch_id = batches.submit("bank", "write", [{"a.csv": "1", "b.csv": "2"}, {"a.csv": "3"}])
        drain()
        return batch_id

    def test_makes_one_file_or_all(self, written):
        """Who wants one does not make the others."""
        batch = Batch.objects.get(pk=written)
        assert set(join.join(batch, uuid4(), renew=lambda size: None)) == {"a.csv", "b.csv"}
        assert set(join.join(batch, uuid4(), renew=lambda size: None, only="a.csv")) == {"a.csv"}

    def test_calls_back_for_each_block_and_file(self, written, monkeypatch):
        """Whoever has a lease can renew it, for as long as what comes next may take."""
        monkeypatch.setattr(join, "BLOCK_ROWS", 1)
        seen = []
        join.join(Batch.objects.get(pk=written), uuid4(), renew=seen.append)
        assert seen == [0, 0, 4, 2]

    def test_raises_what_a_format_is_at_fault_for(self, registry):
        """The error says what could not be made."""
        register_batch_processor(
            "bank", "write", write_lines, output_formats={"a": OutputFormat(header=lambda _: 1 / 0)}
        )
        batch_id = batches.submit("bank", "write", [{"a": "1"}])
        with pytest.raises(FormatFailed, match=r"^The header of an output file could not be made: ZeroDivisionError"):
            drain()
        assert batches.status(batch_id).try_later
