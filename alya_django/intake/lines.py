"""What a checker yields of a file: rows to store, and faulty lines to set aside."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

from alya_django import log_words
from alya_django.checkers import BadFile, FaultyLine, Line, Route, Yielded
from alya_django.conf import settings
from alya_django.control_totals import ControlTotals, Sums
from alya_django.exceptions import InvalidInput
from alya_django.intake.business_keys import BusinessKeys, Keyed
from alya_django.intake.confined import NotStarted
from alya_django.intake.faults import Faults
from alya_django.intake.parent import Parent
from alya_django.intake.routing import Routing
from alya_django.models import database
from alya_django.processors import BatchInput
from alya_django.validation import JSON, EncodedJSON, encode_json

logger = logging.getLogger("alya_django.intake")

YIELDED = (BatchInput, FaultyLine, Route, ControlTotals)


class Totals:
    """What a file declares of its rows, and what these come to as they are read."""

    def __init__(self, names: Sequence[str]) -> None:
        self.declared: ControlTotals | None = None
        self.sums = Sums(names)
        self._names = names

    def declare(self, declared: ControlTotals) -> None:
        """Take what the file declares; raise BadFile if it cannot be compared."""
        if self.declared is not None:
            raise BadFile("The file declares its control totals twice.")
        if unknown := declared.sums.keys() - self._names:
            raise BadFile(f"The file declares the sum of {min(unknown)!r}, which its checker has not in totals.")
        self.declared = declared


def rows(
    check: Callable[[], Iterable[Yielded]],
    faults: Faults,
    totals: Totals,
    routing: Routing,
    keys: BusinessKeys | None = None,
    parent: Parent | None = None,
) -> Generator[BatchInput, None, None]:
    """
    Yield the rows that a checker yields, their inputs as JSON text, add them up, and set its faulty lines aside.

    An input that JSON cannot hold makes its line faulty, and so does an amount that is none, or a business key that
    another row has, or a line that its parent has not to be repeated.

    Raises:
        BadFile: The checker refuses the file, fails, yields something else, or yields too many lines, or does not say
            where the rows go.
    """
    lines = _without_declarations(_checked(check), totals, routing)
    keyed = _encoded(lines, totals, _no_digest if keys is None else keys.digest)
    if parent is not None:
        keyed = parent.only_repeatable(keyed)
    for line, _, amounts in keyed if keys is None else keys.without_duplicates(keyed):
        if isinstance(line, FaultyLine):
            faults.add(line.line, line.reason)
        else:
            totals.sums.add(amounts)
            yield line


def _without_declarations(yielded: Iterable[Yielded], totals: Totals, routing: Routing) -> Iterator[Line]:
    """Yield the lines among what a checker yields, and note what it says of the file as a whole."""
    for one in yielded:
        if isinstance(one, ControlTotals):
            totals.declare(one)
        elif isinstance(one, Route):
            routing.say(one)
        else:
            if routing.route is None and isinstance(one, BatchInput):
                routing.settled()
            yield one


def _encoded(lines: Iterable[Line], totals: Totals, digest: Callable[[JSON], str | None]) -> Iterator[Keyed]:
    """Yield lines, each row with its input as JSON text, the digest of its key, and its amounts."""
    lines_max = settings.BATCH_ROWS_MAX
    for count, line in enumerate(lines, 1):
        if count > lines_max:
            raise BadFile(f"The file has more than {lines_max} lines, the limit.")
        if isinstance(line, FaultyLine):
            yield line, None, ()
            continue
        try:
            text = "{}" if line.input is None else encode_json(line.input, "input")
            amounts = totals.sums.amounts(line.input)
        except InvalidInput as error:
            yield FaultyLine(line.line, f"{error}"), None, ()
        else:
            yield BatchInput(line.line, EncodedJSON(text)), digest(line.input), amounts


def _no_digest(input: JSON) -> None:
    return None


def _checked(check: Callable[[], Iterable[Yielded]]) -> Iterator[Yielded]:
    """Yield what the project's code yields; whatever it raises refuses the file, unless the database is at fault."""
    last = 0
    try:
        for line in check():
            if not isinstance(line, YIELDED):
                raise TypeError(f"it yields a BatchInput or a FaultyLine, not {line!r}")
            last = line.line if isinstance(line, BatchInput | FaultyLine) else last
            yield line
    except (BadFile, NotStarted):
        raise
    except Exception as error:
        if database().is_away(error) or database().is_refusal(error):
            raise
        # The sender is told what was raised; where, only who has to mend the checker.
        said = log_words.of_error(error)
        logger.warning(
            "A checker failed after line %s, its file is rejected: %s",
            last,
            said,
            exc_info=log_words.traceback_of(error),
        )
        raise BadFile(f"The checker failed: {type(error).__name__}: {error}") from error
