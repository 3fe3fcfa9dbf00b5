"""What a checker yields of a file: rows to store, and faulty lines to set aside."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from alya_django.checkers import BadFile, FaultyLine
from alya_django.conf import settings
from alya_django.exceptions import InvalidInput
from alya_django.intake.faults import Faults
from alya_django.processors import BatchInput
from alya_django.validation import EncodedJSON, encode_json

Line = BatchInput | FaultyLine


def rows(check: Callable[[], Iterable[Line]], faults: Faults) -> Iterator[BatchInput]:
    """
    Yield the rows that a checker yields, their inputs as JSON text, and set its faulty lines aside.

    An input that JSON cannot hold makes its line faulty.

    Raises:
        BadFile: The checker refuses the file, fails, yields something else, or yields too many lines.
    """
    lines_max: int = settings.BATCH_ROWS_MAX
    for count, line in enumerate(_checked(check), 1):
        if count > lines_max:
            raise BadFile(f"The file has more than {lines_max} lines, the limit.")
        if isinstance(line, FaultyLine):
            faults.add(line.line, line.reason)
            continue
        try:
            text = "{}" if line.input is None else encode_json(line.input, "input")
        except InvalidInput as error:
            faults.add(line.line, f"{error}")
        else:
            yield BatchInput(line.line, EncodedJSON(text))


def _checked(check: Callable[[], Iterable[Line]]) -> Iterator[Line]:
    """Yield what the project's code yields; whatever else it raises refuses the file."""
    try:
        for line in check():
            if not isinstance(line, BatchInput | FaultyLine):
                raise TypeError(f"it yields a BatchInput or a FaultyLine, not {line!r}")
            yield line
    except BadFile:
        raise
    except Exception as error:
        raise BadFile(f"The checker failed: {type(error).__name__}: {error}") from error
