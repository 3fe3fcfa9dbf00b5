"""Which lines of a file bring what a row of their op has brought already, by the values that make a row unique."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from hashlib import blake2b
from typing import NamedTuple
from uuid import UUID

from alya_django.checkers import BadFile, FaultyLine, FileChecker, Line
from alya_django.conf import settings
from alya_django.intake.routing import Routing
from alya_django.models import Batch, BatchRow, BusinessKey, database
from alya_django.processors import BatchInput
from alya_django.status import Status
from alya_django.validation import JSON

BLOCK_ROWS = 5_000
BLOCK_CHARS = 8_000_000
DIGEST_BYTES = 16


class Owner(NamedTuple):
    """The row that has a key."""

    batch_id: UUID
    line: int


Amounts = tuple[Decimal, ...]
Keyed = tuple[Line, str | None, Amounts]


class BusinessKeys:
    """
    The business keys of one file's rows.

    The table is asked once for each block of lines, so memory stays flat, and its primary key keeps files apart that
    are received at the same time. A key whose row has failed, or was aborted, and is not about to be retried, is free.
    """

    def __init__(self, checker: FileChecker, routing: Routing, batch_id: UUID) -> None:
        self._routing = routing
        self._unique_by = checker.unique_by
        self._batch_id = batch_id
        # The fields that no row has had so far.
        self._unseen = set() if callable(checker.unique_by) else set(checker.unique_by or ())

    def digest(self, input: JSON) -> str | None:
        """Return the digest of an input's key; None if it has none of the values."""
        values = self._values(input)
        if not any(values):
            return None
        route = self._routing.settled()
        # No value that is stored has a NUL in it.
        key = "\0".join([route.app, route.op, *values]).encode(errors="surrogatepass")
        return blake2b(key, digest_size=DIGEST_BYTES).hexdigest()

    def without_duplicates(self, lines: Iterable[Keyed]) -> Iterator[Keyed]:
        """
        Yield lines in their order; a row whose key another one has becomes a faulty line.

        Raises:
            BadFile: There are rows, and none has a field that makes them unique: nothing would be compared by it.
        """
        has_rows = False
        for block in blocks(lines):
            has_rows = has_rows or any(isinstance(line, BatchInput) for line, _, _ in block)
            wanted: dict[str, int] = {}
            for line, digest, _ in block:
                if digest is not None:
                    wanted.setdefault(digest, line.line)
            owners = self._take(wanted) if wanted else {}
            for line, digest, amounts in block:
                if digest is not None and (digest in owners or wanted[digest] != line.line):
                    line = self._duplicate(line.line, owners.get(digest, Owner(self._batch_id, wanted[digest])))
                yield line, digest, amounts
        if has_rows and self._unseen:
            raise BadFile(f"No row has {min(self._unseen)!r}, which unique_by of the checker names.")

    def _values(self, input: JSON) -> list[str]:
        if callable(self._unique_by):
            try:
                key = self._unique_by(input)
            except Exception as error:
                raise BadFile(f"unique_by failed: {type(error).__name__}: {error}") from error
            values = key if isinstance(key, list | tuple) else [key]
        elif isinstance(input, dict):
            self._unseen.difference_update(input)
            values = [input.get(name) for name in self._unique_by or ()]
        else:
            raise BadFile("The checker yields a row that is no object, and has unique_by name fields of it.")
        return ["" if value is None else str(value) for value in values]

    def _take(self, wanted: Mapping[str, int]) -> dict[str, Owner]:
        """Take keys for lines, and return who has those that cannot be taken."""
        owners = self._try(wanted)
        free = set(self._free(owners))
        if free:
            BusinessKey.objects.primary().filter(digest__in=free).delete()
            owners = {digest: owner for digest, owner in owners.items() if digest not in free}
            owners |= self._try({digest: wanted[digest] for digest in free})
        return owners

    def _try(self, wanted: Mapping[str, int]) -> dict[str, Owner]:
        taken = database().take_keys(self._batch_id, wanted, days=settings.DUPLICATE_DAYS)
        lost = [digest for digest, line in wanted.items() if line not in taken]
        if not lost:
            return {}
        found = BusinessKey.objects.primary().filter(digest__in=lost)
        rows = found.values_list("digest", "batch", "line")
        return {digest.hex: Owner(batch_id, line) for digest, batch_id, line in rows}

    def _free(self, owners: Mapping[str, Owner]) -> Iterator[str]:
        """Yield the keys whose rows have come to nothing, and that no retry has in hand."""
        by_batch: dict[UUID, dict[int, str]] = {}
        for digest, (batch_id, line) in owners.items():
            by_batch.setdefault(batch_id, {})[line] = digest
        others = Batch.objects.primary().filter(pk__in=by_batch.keys() - {self._batch_id})
        for batch in others.exclude(status=Status.SUCCESS):
            keys = by_batch[batch.pk]
            rows = BatchRow.objects.primary().to_retry(batch).filter(line__in=keys)
            yield from (keys[line] for line in rows.values_list("line", flat=True))

    def _duplicate(self, line: int, owner: Owner) -> FaultyLine:
        what = "key" if callable(self._unique_by) else ", ".join(self._unique_by or ())
        where = "" if owner.batch_id == self._batch_id else f" of batch {owner.batch_id}"
        return FaultyLine(line, f"has the same {what} as line {owner.line}{where}")


def blocks(lines: Iterable[Keyed]) -> Iterator[list[Keyed]]:
    """Yield lines in blocks of so many rows, or characters of JSON."""
    block: list[Keyed] = []
    chars = 0
    try:
        for keyed in lines:
            block.append(keyed)
            chars += len(keyed[0].input) if isinstance(keyed[0], BatchInput) else 0
            if len(block) == BLOCK_ROWS or chars > BLOCK_CHARS:
                yield block
                block, chars = [], 0
    except BadFile:
        # The faulty lines that are read already are told with the refusal, and often say why.
        yield block
        raise
    if block:
        yield block
