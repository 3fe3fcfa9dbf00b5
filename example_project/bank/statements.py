"""What a statement says: an account's entries from one day to another, and its balance after each."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.db.models import QuerySet, Sum
from django.utils import timezone

from alya_django import ErrorMessage, RowFailed
from example_project.bank.models import Account, Entry
from example_project.bank.money import to_text

COLUMNS = ("date", "counterpart", "text", "amount", "balance", "reference")
# Not the first and last that there are: beyond those no time zone can tell when a day begins.
YEARS = range(1900, 3000)


@dataclass(frozen=True, slots=True)
class Line:
    """An entry, and the balance after it."""

    entry: Entry
    balance_cents: int

    def cells(self) -> tuple[str, ...]:
        """Return the line's cells in the order of COLUMNS."""
        day = timezone.localtime(self.entry.created_at).date().isoformat()
        amount, balance = to_text(self.entry.cents), to_text(self.balance_cents)
        return day, self.entry.counterpart.number, self.entry.text, amount, balance, self.entry.reference


@dataclass(frozen=True, slots=True)
class Period:
    """An account, and the days of its statement, the last one included."""

    account: Account
    first_day: datetime.date
    last_day: datetime.date

    @classmethod
    def from_input(cls, asked: dict[str, Any]) -> Period:
        """
        Return the period that a slow query asks for.

        Raises:
            RowFailed: no_such_account or bad_date.
        """
        first_day, last_day = _day(asked, "from"), _day(asked, "to")
        if last_day < first_day:
            raise RowFailed(ErrorMessage("bad_date", field="to", msgid=105))
        account = Account.objects.filter(number=str(asked.get("account"))).first()
        if account is None:
            raise RowFailed(ErrorMessage("no_such_account", field="account", msgid=103))
        return cls(account, first_day, last_day)

    def opening_cents(self) -> int:
        """Return the balance when the first day begins."""
        earlier = self.account.entries.filter(created_at__lt=_midnight(self.first_day))
        return earlier.aggregate(cents=Sum("cents"))["cents"] or 0

    def lines(self, balance_cents: int) -> Iterator[Line]:
        """Yield the entries in the order in which they were written, beginning with the opening balance."""
        for entry in self._entries().iterator():
            balance_cents += entry.cents
            yield Line(entry, balance_cents)

    def _entries(self) -> QuerySet[Entry]:
        end = _midnight(self.last_day + datetime.timedelta(days=1))
        entries = self.account.entries.filter(created_at__gte=_midnight(self.first_day), created_at__lt=end)
        return entries.select_related("counterpart").order_by("created_at", "pk")


def _day(asked: dict[str, Any], field: str) -> datetime.date:
    try:
        day = datetime.date.fromisoformat(asked[field])
    except (KeyError, TypeError, ValueError):
        day = None
    if day is None or day.year not in YEARS:
        raise RowFailed(ErrorMessage("bad_date", field=field, msgid=105))
    return day


def _midnight(day: datetime.date) -> datetime.datetime:
    return timezone.make_aware(datetime.datetime.combine(day, datetime.time.min))
