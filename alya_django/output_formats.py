"""What stands around the lines of an output file: a header, and a trailer with totals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Any

from alya_django.answers import BatchDetails
from alya_django.exceptions import FormatFailed
from alya_django.faults import describe, spare_ctrl_c

Amount = Callable[[str], Decimal | int | str]
"""What reads an amount in the text that a row has added."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputTotals:
    """
    What a trailer may tell of the file above it; the header is not counted.

    Args:
        details: The batch, with the status that it ends in; ``done_at`` and ``output_files`` are not yet known.
        rows: How many rows have added something.
        lines: How many lines that is.
        sums: The sums of the amounts that the format names.
    """

    details: BatchDetails
    rows: int
    lines: int
    sums: Mapping[str, Decimal]


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFormat:
    """
    The format of an output file; what it says must follow from its arguments alone, so that a file can be rebuilt.

    Args:
        header: A text to stand before the lines, or a function of the batch that returns one.
        trailer: A function of the file's totals that returns a text to stand behind the lines.
        sums: Names of sums, each with a function that reads its amount in the text that a row has added: a whole
            number, a Decimal, or a text that is one. A row whose text it raises for fails.
        content_type: What the file is, where its name does not tell.
    """

    header: str | Callable[[BatchDetails], str] = ""
    trailer: Callable[[OutputTotals], str] | None = None
    sums: Mapping[str, Amount] = field(default_factory=dict)
    content_type: str = ""

    def __post_init__(self) -> None:
        if not (isinstance(self.header, str) or callable(self.header)):
            raise TypeError(f"header is a text or a function of BatchDetails, not {self.header!r}.")
        if not (self.trailer is None or callable(self.trailer)):
            raise TypeError(f"trailer is a function of OutputTotals, not {self.trailer!r}.")
        if not (isinstance(self.sums, Mapping) and all(callable(amount) for amount in self.sums.values())):
            raise TypeError(f"sums maps names to functions of a text, not {self.sums!r}.")

    def amounts(self, text: str) -> dict[str, Decimal]:
        """Return the amounts in a text that a row adds; raise what the project's functions raise."""
        return {name: _decimal(name, amount(text)) for name, amount in self.sums.items()}


PLAIN = OutputFormat()
"""The format of a file that none is given for: its lines and nothing else."""


def format_of(formats: Mapping[str, OutputFormat], logical_name: str) -> OutputFormat:
    """Return the format of a file: that of its name, or of the first pattern that fits, such as ``*.csv``."""
    if logical_name in formats:
        return formats[logical_name]
    return next((each for pattern, each in formats.items() if fnmatchcase(logical_name, pattern)), PLAIN)


class Frame:
    """The header and trailer of one file in the making."""

    def __init__(self, form: OutputFormat, details: BatchDetails) -> None:
        self.form = form
        self._details = details
        self._rows = self._lines = 0
        self._sums = dict.fromkeys(form.sums, Decimal(0))

    def header(self) -> str:
        """Return what stands before the lines; raise FormatFailed."""
        header = self.form.header
        return header if isinstance(header, str) else _text("header", lambda: header(self._details))

    def count(self, texts: Iterable[str]) -> None:
        """Take in the texts that rows have added; raise FormatFailed."""
        if self.form.trailer is None:
            return
        for text in texts:
            self._rows += 1
            self._lines += text.count("\n") + (not text.endswith("\n"))
            self._add_amounts(text)

    def trailer(self) -> str:
        """Return what stands behind the lines; raise FormatFailed."""
        trailer = self.form.trailer
        if trailer is None:
            return ""
        totals = OutputTotals(details=self._details, rows=self._rows, lines=self._lines, sums=self._sums)
        return _text("trailer", lambda: trailer(totals))

    def _add_amounts(self, text: str) -> None:
        try:
            for name, amount in self.form.amounts(text).items():
                self._sums[name] += amount
        except BaseException as error:
            spare_ctrl_c(error)
            raise FormatFailed(f"The amounts of an output file could not be read: {describe(error)}") from error


def _decimal(name: str, amount: Any) -> Decimal:
    if isinstance(amount, bool) or not isinstance(amount, Decimal | int | str):
        raise TypeError(f"The amount {name!r} is a {type(amount).__name__}, not a Decimal, a whole number or a text.")
    number = Decimal(amount)
    if not number.is_finite():
        raise ValueError(f"The amount {name!r} is {number}.")
    return number


def _text(what: str, make: Callable[[], str]) -> str:
    try:
        text = make()
        text.encode()
    except BaseException as error:
        spare_ctrl_c(error)
        raise FormatFailed(f"The {what} of an output file could not be made: {describe(error)}") from error
    return text
