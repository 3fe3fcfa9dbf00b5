"""What a person says to get a statement."""

import datetime
from typing import Any

from django import forms
from django.utils import timezone

from example_project.bank.models import Account

CUSTOMERS = Account.objects.exclude(kind=Account.Kind.BANK)


def first_of_month() -> datetime.date:
    """Return the day on which this month began."""
    return timezone.localdate().replace(day=1)


class StatementForm(forms.Form):
    """Which account, from which day to which."""

    account = forms.ModelChoiceField(CUSTOMERS, to_field_name="number", empty_label=None)
    first_day = forms.DateField(initial=first_of_month, widget=forms.DateInput({"type": "date"}))
    last_day = forms.DateField(initial=timezone.localdate, widget=forms.DateInput({"type": "date"}))

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        first_day, last_day = cleaned.get("first_day"), cleaned.get("last_day")
        if first_day and last_day and last_day < first_day:
            self.add_error("last_day", "The last day is before the first.")
        return cleaned

    def input(self) -> dict[str, str]:
        """Return the input of the slow query."""
        return {
            "account": self.cleaned_data["account"].number,
            "from": self.cleaned_data["first_day"].isoformat(),
            "to": self.cleaned_data["last_day"].isoformat(),
        }
