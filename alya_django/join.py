"""Make output files of the lines that rows have added: read in the order of lines, joined, measured, saved."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID

from django.core.files.base import File

from alya_django import outputs
from alya_django.answers import BatchDetails, OutputFile
from alya_django.models import Batch, BatchRow
from alya_django.output_formats import Frame, format_of
from alya_django.registry import registry
from alya_django.status import Kind, Status

BLOCK_ROWS = 2_000


def join(
    batch: Batch, attempt: UUID, *, renew: Callable[[int], Any], only: str | None = None
) -> dict[str, OutputFile]:
    """
    Make the output files of a batch whose rows have ended, or one of them, and return them by their logical names.

    Args:
        attempt: The token under which their objects are kept apart from those of other attempts.
        renew: Called after each block of rows with 0, and before each file is copied with its size in bytes.

    Raises:
        FormatFailed: The project's code for a header or trailer has raised.
    """
    registration = registry.find(Kind(batch.kind), batch.app, batch.op)
    formats = {} if registration is None else registration.options.output_formats
    details = _as_it_ends(batch)
    with Joiner(batch.pk, attempt, lambda name: Frame(format_of(formats, name), details)) as joiner:
        for block in contributions(batch.pk, only):
            joiner.add(block)
            renew(0)
        return joiner.save(renew)


def contributions(batch_id: UUID, only: str | None = None) -> Iterator[list[dict[str, str]]]:
    """Yield what the rows of a batch have added to output files, or to one, in blocks, in the order of lines."""
    rows = BatchRow.objects.primary().filter(batch=batch_id, output_lines__isnull=False).ended()
    in_order = rows.order_by("line").values_list("line", "output_lines")
    last_line = 0
    while block := list(in_order.filter(line__gt=last_line)[:BLOCK_ROWS]):
        added = [output_lines or {} for _, output_lines in block]
        yield added if only is None else [{only: lines[only]} for lines in added if only in lines]
        last_line = block[-1][0]


class Joiner:
    """
    Join the texts that rows add into files.

    The files are spooled to a temporary directory and saved once they are whole: a storage that is written to
    piece by piece may publish half a file. Texts are kept as they are; each ends in exactly one newline that is added
    only where it has none.
    """

    def __init__(self, batch_id: UUID, attempt: UUID, frame_of: Callable[[str], Frame] | None = None) -> None:
        self._batch_id = batch_id
        self._attempt = attempt
        self._frame_of = frame_of
        self._spool = TemporaryDirectory(prefix="alya-")
        self._files: dict[str, _Spooled] = {}

    def __enter__(self) -> Joiner:
        return self

    def __exit__(self, *exception: object) -> None:
        self._spool.cleanup()

    def add(self, contributions: Iterable[Mapping[str, str]]) -> None:
        """Add what some rows contribute, in the order given."""
        texts: dict[str, list[str]] = {}
        for contribution in contributions:
            for logical_name, text in contribution.items():
                if text:
                    texts.setdefault(logical_name, []).append(text)
        for logical_name, parts in texts.items():
            self._file(logical_name).add(parts)

    def save(self, before_each: Callable[[int], Any]) -> dict[str, OutputFile]:
        """Save the files, calling back with the bytes of each before it, and return them by their logical names."""
        return {name: self._save(name, spooled, before_each) for name, spooled in self._files.items()}

    def _file(self, logical_name: str) -> _Spooled:
        if logical_name not in self._files:
            path = Path(self._spool.name, str(len(self._files)))
            self._files[logical_name] = _Spooled(path, self._frame_of and self._frame_of(logical_name))
        return self._files[logical_name]

    def _save(self, logical_name: str, spooled: _Spooled, before: Callable[[int], Any]) -> OutputFile:
        spooled.close()
        before(spooled.size)
        content_type = spooled.frame.form.content_type if spooled.frame else ""
        with spooled.path.open("rb") as content:
            name = outputs.save(self._batch_id, self._attempt, logical_name, File(content), content_type)
        return OutputFile(
            object_name=name,
            size=spooled.size,
            content_type=content_type or outputs.content_type(logical_name),
            checksum=spooled.digest.hexdigest(),
        )


class _Spooled:
    """
    One file in the making, measured as it grows.

    It is opened for each block of rows: a thousand files stay within any limit on open ones.
    """

    def __init__(self, path: Path, frame: Frame | None) -> None:
        self.path = path
        self.frame = frame
        self.size = 0
        self.digest = hashlib.sha256()
        if frame is not None:
            self._write(_ended(frame.header()))

    def add(self, texts: list[str]) -> None:
        if self.frame is not None:
            self.frame.count(texts)
        self._write("".join([text if text.endswith("\n") else f"{text}\n" for text in texts]))

    def close(self) -> None:
        """Write what stands behind the lines."""
        if self.frame is not None:
            self._write(_ended(self.frame.trailer()))

    def _write(self, text: str) -> None:
        content = text.encode()
        with self.path.open("ab") as file:
            file.write(content)
        self.digest.update(content)
        self.size += len(content)


def _ended(text: str) -> str:
    """Return a header or trailer ended by a newline; none is none."""
    return text if not text or text.endswith("\n") else f"{text}\n"


def _as_it_ends(batch: Batch) -> BatchDetails:
    """Return what a header may know of a batch, the same while it is finished and when a file is rebuilt."""
    details = batch.details()
    return replace(details, status=Status.of_finished(nfailed=details.nfailed), done_at=None, output_files={})
