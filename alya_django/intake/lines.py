"""What a checker yields of a file: rows to store, and faulty lines to set aside."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from alya_django.checkers import BadFile, FaultyLine
from alya_django.conf import settings
from alya_django.exceptions import InvalidInput
from alya_django.intake.business_keys import BusinessKeys, Keyed, Line
from alya_django.intake.faults import Faults
from alya_django.models import database
from alya_django.processors import BatchInput
from alya_django.validation import JSON, EncodedJSON, encode_json


def rows(
    check: Callable[[], Iterable[Line]], faults: Faults, keys: BusinessKeys | None = None
) -> Iterator[BatchInput]:
    """
    Yield the rows that a checker yields, their inputs as JSON text, and set its faulty lines aside.

    An input that JSON cannot hold makes its line faulty, and so does a business key that another row has.

    Raises:
        BadFile: The checker refuses the file, fails, yields something else, or yields too many lines.
    """
    keyed = _encoded(_checked(check), _no_digest if keys is None else keys.digest)
    lines = (line for line, _ in keyed) if keys is None else keys.without_duplicates(keyed)
    for line in lines:
        if isinstance(line, FaultyLine):
            faults.add(line.line, line.reason)
        else:
            yield line


def _encoded(lines: Iterable[Line], digest: Callable[[JSON], str | None]) -> Iterator[Keyed]:
    """Yield lines, each row with its input as JSON text and the digest of its key."""
    lines_max: int = settings.BATCH_ROWS_MAX
    for count, line in enumerate(lines, 1):
        if count > lines_max:
            raise BadFile(f"The file has more than {lines_max} lines, the limit.")
        if isinstance(line, FaultyLine):
            yield line, None
            continue
        try:
            text = "{}" if line.input is None else encode_json(line.input, "input")
        except InvalidInput as error:
            yield FaultyLine(line.line, f"{error}"), None
        else:
            yield BatchInput(line.line, EncodedJSON(text)), digest(line.input)


def _no_digest(input: JSON) -> None:
    return None


def _checked(check: Callable[[], Iterable[Line]]) -> Iterator[Line]:
    """Yield what the project's code yields; whatever it raises refuses the file, unless the database is at fault."""
    try:
        for line in check():
            if not isinstance(line, BatchInput | FaultyLine):
                raise TypeError(f"it yields a BatchInput or a FaultyLine, not {line!r}")
            yield line
    except BadFile:
        raise
    except Exception as error:
        if database().is_away(error) or database().is_refusal(error):
            raise
        raise BadFile(f"The checker failed: {type(error).__name__}: {error}") from error
