"""What a file declares of itself, its count and sums, and whether that is true. Amounts are exact: never floats."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Context, Decimal, Inexact
from typing import Any

from alya_django.exceptions import InvalidInput
from alya_django.validation import JSON

# What a bank writes. Decimal would take exponents, infinities and the digits of all scripts, too.
AMOUNT = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)")
AMOUNT_CHARS_MAX = 100
# A sum of as many amounts of that length as there can be; one that were rounded would be an error.
_exact = Context(prec=2 * AMOUNT_CHARS_MAX, traps=[Inexact])


@dataclass(frozen=True, slots=True)
class ControlTotals:
    """
    What a file says that it holds; a checker yields it once, wherever it stands in the file.

    Args:
        count: How many rows.
        sums: What the values of a field add up to, by the field's name; as texts, whole numbers or Decimals.

    Raises:
        InvalidInput: The count or a sum is none.
    """

    count: int | None = None
    sums: Mapping[str, str | int | Decimal] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.count is not None and (isinstance(self.count, bool) or not isinstance(self.count, int)):
            raise InvalidInput(f"must be a whole number, not {self.count!r}.", field="count")
        for name, value in self.sums.items():
            amount(_text(value), f"sums.{name}")

    def as_json(self) -> dict[str, JSON]:
        """Return the totals as they are stored, the sums as texts."""
        return {"count": self.count, "sums": {name: _text(value) for name, value in self.sums.items()}}


def amount(value: JSON, field: str) -> Decimal:
    """Return a text or whole number as an exact amount; raise InvalidInput if it is none."""
    if isinstance(value, str) and len(value) <= AMOUNT_CHARS_MAX and AMOUNT.fullmatch(value):
        return Decimal(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return amount(str(value), field)
    hint = " (give amounts as texts)" if isinstance(value, float) else ""
    raise InvalidInput(f"{value!r} is no amount{hint}.", field=field)


class Sums:
    """The sums of some fields over rows."""

    def __init__(self, names: Sequence[str]) -> None:
        self._sums = dict.fromkeys(names, Decimal(0))

    def amounts(self, input: JSON) -> tuple[Decimal, ...]:
        """Return a row's amounts; raise InvalidInput, naming the field, if it lacks one."""
        fields: Mapping[str, Any] = input if isinstance(input, dict) else {}
        return tuple(amount(fields.get(name), name) for name in self._sums)

    def add(self, amounts: Iterable[Decimal]) -> None:
        """Add the amounts of a row."""
        for name, value in zip(self._sums, amounts, strict=True):
            self._sums[name] = _exact.add(self._sums[name], value)

    def as_json(self) -> dict[str, JSON]:
        """Return the sums as texts."""
        return {name: f"{value:f}" for name, value in self._sums.items()}


def differences(declared: Mapping[str, Any], found: Mapping[str, Any], what: str) -> list[str]:
    """Return what is not as declared, in words; both sides are as they are stored, and only what both have counts."""
    differing = []
    if declared.get("count") is not None and found.get("count", declared["count"]) != declared["count"]:
        differing.append(f"{declared['count']} rows declared, {found['count']} {what}")
    for name, value in declared["sums"].items():
        if Decimal(value) != Decimal(found["sums"][name]):
            differing.append(f"{name}: {value} declared, {found['sums'][name]} {what}")
    return differing


def _text(value: Any) -> Any:
    """Return an amount as text, a Decimal without an exponent; what is neither stays as it is, to be refused."""
    if isinstance(value, Decimal):
        return f"{value:f}"
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value
